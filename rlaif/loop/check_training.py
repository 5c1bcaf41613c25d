"""`python -m rlaif.loop.check_training RECIPE`: are its `train` blocks TRL's and peft's to take?

A key that a trainer does not know is found here, before the first label is paid for. In a process
of its own: TRL takes torch.
"""

from __future__ import annotations

import sys

from rlaif.loop.child_main import child_main
from rlaif.loop.track import trackers
from rlaif.recipe import Recipe


def check_training(recipe_file: str) -> None:
    """Hold a recipe's training blocks against the dataclasses that they are for.

    Raises:
        RecipeError: an unknown key or a value of the wrong kind, with file, key and mend; a metric
            or a tracker that is not there.
    """
    from peft import LoraConfig

    from rlaif.train.arguments import CONFIGS, check_keys

    recipe = Recipe.load(recipe_file)
    again = {} if recipe.loop is None else recipe.loop.retry.get("train", {})
    for at, train in (("train", recipe.train.model_dump()), ("loop.retry.train", again)):
        for name, made in (*CONFIGS.items(), ("lora", LoraConfig)):
            if isinstance(train, dict) and isinstance(block := train.get(name), dict):
                check_keys(block, made, f"{at}.{name}", recipe_file)
    trackers(recipe)
    if recipe.loop is not None and recipe.loop.metric is not None:
        from rlaif.loop.measure import load_metric

        load_metric(recipe)


if __name__ == "__main__":
    sys.exit(child_main(lambda: check_training(sys.argv[1])))
