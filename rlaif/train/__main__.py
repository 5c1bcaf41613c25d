"""``python -m rlaif.train {sft,dpo,reward} RECIPE``: parse, and only then import torch.

The same under ``accelerate launch -m rlaif.train …`` and ``torchrun -m rlaif.train …``.

When all is written, the process ends at once, without taking down its native libraries: a thread
that torch's process group has left behind can abort that, and the launcher then reports a finished
training as failed ("terminate called without an active exception").
"""

from __future__ import annotations

import argparse
import atexit
import os
import sys
from typing import NoReturn

from rlaif import lifeline
from rlaif.errors import RlaifError
from rlaif.train.plan import STAGES


def main(argv: list[str] | None = None) -> int:
    """Train one stage of a recipe. 0: it is trained; 2: one line on stderr says why it is not."""
    parser = argparse.ArgumentParser(prog="python -m rlaif.train", description=main.__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("recipe", help="the recipe's YAML file")
    options = parser.parse_args(argv)
    lifeline.hold()
    from rlaif.train.run import train

    try:
        train(options.stage, options.recipe)
    except RlaifError as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"rlaif.train: {error}", file=sys.stderr)
        return 2
    return 0


def end(status: int) -> NoReturn:
    """End this process: what is registered to run at its end runs, what is printed is printed."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    end(main())
