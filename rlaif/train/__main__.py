"""``python -m rlaif.train {sft,dpo,reward} RECIPE``: parse, and only then import torch.

The same under ``accelerate launch -m rlaif.train …`` and ``torchrun -m rlaif.train …``.
"""

from __future__ import annotations

import argparse
import os
import sys

from rlaif.errors import RlaifError
from rlaif.train.plan import STAGES


def main(argv: list[str] | None = None) -> int:
    """Train one stage of a recipe. 0: it is trained; 2: one line on stderr says why it is not."""
    parser = argparse.ArgumentParser(prog="python -m rlaif.train", description=main.__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("recipe", help="the recipe's YAML file")
    options = parser.parse_args(argv)
    from rlaif.train.run import train

    try:
        train(options.stage, options.recipe)
    except RlaifError as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"rlaif.train: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
