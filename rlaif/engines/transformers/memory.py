"""How many tokens go into one forward pass: as many as the memory that is free has room for.

Looked up once a run, kept in the run folder, and part of what names the engine: in bfloat16
another batching gives other bytes, so a run that goes on must go on with the batches it had.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import torch

MOST = {"cpu": 2048, "cuda": 32_768}
"""More tokens in a pass multiply no faster."""
_LEAST = 256
_SHARE = 0.4
"""Of the free memory; the rest is for what a pass needs besides, and for others."""


def batch_tokens(config: Any, dtype: torch.dtype, device: str, weights: int, passes: int) -> int:
    """The most tokens in one forward pass: a power of two, so that small changes change nothing.

    Args:
        config: the model's text configuration.
        dtype: what it computes in.
        device: "cpu", "cuda", "cuda:1", …
        weights: the bytes of its weights, which are not loaded yet.
        passes: how many passes run at once.
    """
    room = _SHARE * max(0, free_bytes(device) - weights) / passes
    fits = min(int(room // bytes_a_token(config, dtype)), MOST.get(device.split(":")[0], _LEAST))
    return max(_LEAST, 1 << max(0, fits.bit_length() - 1))


def bytes_a_token(config: Any, dtype: torch.dtype) -> int:
    """An upper estimate of what one token of a pass holds at once, logits apart.

    The largest layer at work: residual, norm, queries, keys and values and the heads' output, and
    the three of a gated feed-forward, the norms in float32.
    """
    hidden = config.hidden_size
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    inner *= getattr(config, "num_experts_per_tok", None) or 1
    return int(dtype.itemsize * (8 * hidden + 3 * inner) + 4 * 4 * hidden)


def free_bytes(device: str) -> int:
    """Memory that is free on a device now, in bytes; within a container, of its own."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    return min(int(psutil.virtual_memory().available), _left_in_container())


def _left_in_container() -> int:
    """What a control group still allows; as good as no limit where there is none."""
    folder, no_limit = Path("/sys/fs/cgroup"), 1 << 62
    try:
        most = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return no_limit
    return no_limit if most == "max" else max(0, int(most) - used)
