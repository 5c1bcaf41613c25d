"""At the end of a loop: cards beside what it made and, where the recipe asks for it, the hub.

    RUN/best/, RUN/rounds/ → publish → RUN/best/README.md, RUN/labels/ → NAME, NAME-labels

Nothing of the run depends on it: a hub that cannot be reached costs the run nothing, and the same
command pushes again. Only what makes up a model or a data set is pushed, by the files' names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif.errors import PublishError
from rlaif.loop.cards import model_card
from rlaif.loop.label_folder import write_labels
from rlaif.loop.places import LoopFolder
from rlaif.loop.state import State
from rlaif.recipe import Recipe

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""Where the token comes from; nowhere else is it looked for."""

_MODEL = (
    "README.md", "*.safetensors", "*.safetensors.index.json", "config.json",
    "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "chat_template.jinja", "*.py",
)  # fmt: skip
_LABELS = ("README.md", "*/*.parquet")


def publish(
    folder: LoopFolder, recipe: Recipe, state: State, say: Callable[[str], None] = print
) -> None:
    """Write the cards of a loop's best model and of its labels; push both where it is asked for.

    Args:
        folder: the loop's.
        recipe: the loop's.
        state: at the end; without a best round there is nothing to write.
        say: is told where things went.

    Raises:
        JournalError: the disk is full, and so on.
        PublishError: no token, no connection, a refusal of the hub, and so on. Everything is in
            the run folder, and pushing can be tried again.
    """
    if state.best is None or not folder.best.is_dir():
        return
    name = None if recipe.loop is None else recipe.loop.push_to_hub
    labels_name = None if name is None else f"{name}-labels"
    card = model_card(folder, recipe, state, labels_name)
    folder.run.write_text(folder.best / "README.md", card)
    labels = write_labels(folder, recipe, state)
    if name is None or labels_name is None:
        return
    # The labels first: the model's card names them.
    for kind, repo, path, files in (
        ("dataset", labels_name, labels, _LABELS), ("model", name, folder.best, _MODEL)
    ):  # fmt: skip
        say(f"pushed to {push(repo, path, kind, files)}")


def push(name: str, folder: Path, kind: str, files: Sequence[str]) -> str:
    """Put the files of a folder into a repository of the hub, which is made where there is none.

    Args:
        name: of the repository; without an owner, the token's.
        folder: whose files.
        kind: "model" or "dataset".
        files: patterns of the names to push.

    Returns:
        The repository's address.

    Raises:
        PublishError: as `publish`.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    token = next((value for key in TOKENS if (value := os.environ.get(key))), None)
    if token is None:
        raise _failed("there is no token", name, f"set {TOKENS[0]} to one that may write")
    try:
        return _push(HfApi(token=token), name, folder, kind, files)
    except OfflineModeIsEnabled as error:
        mend = "take HF_HUB_OFFLINE out of the environment"
        raise _failed("the hub is switched off", name, mend) from error
    except HFValidationError as error:
        raise _failed(str(error), name, 'write "owner/name"') from error
    except HfHubHTTPError as error:
        response = error.response
        said = getattr(error, "server_message", None) or f"status {response.status_code}"
        raise _failed(f"the hub refused: {_without(token, said)}", name, _AGAIN) from None
    except Exception as error:  # a broken connection has as many classes as there are libraries
        raise _failed(_without(token, str(error) or type(error).__name__), name, _AGAIN) from None


_AGAIN = "all of it is in the run folder: mend that, and start again to push it"


def _push(api: HfApi, name: str, folder: Path, kind: str, files: Sequence[str]) -> str:
    made = api.create_repo(name, repo_type=kind, exist_ok=True)
    api.upload_folder(
        repo_id=made.repo_id, repo_type=kind, folder_path=folder, allow_patterns=list(files),
        delete_patterns=list(files),  # shards of an earlier push would be read with the new ones
        commit_message="Made by rlaif",
    )  # fmt: skip
    return str(made.url)


def _failed(what: str, name: str, mend: str) -> PublishError:
    return PublishError(what, key="loop.push_to_hub", value=name, mend=mend)


def _without(token: str, text: str) -> str:
    """What is told never holds the token."""
    return text.partition("\n")[0].replace(token, "…")
