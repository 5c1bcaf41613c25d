from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlaif.engines.load import load_engine
from rlaif.engines.transformers import TransformersEngine
from rlaif.errors import EngineError
from rlaif.recipe import Model
from tests.tiny_models import tiny_model_folder


def spec(folder: Path, **changes: Any) -> Any:
    return Model.model_validate({"model": str(folder), **changes})


def test_a_recipe_section_becomes_its_engine(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "m")
    model = spec(folder, dtype="float32", engine_args={"pack": False, "batch_tokens": 99})
    engine = load_engine(model)
    assert isinstance(engine, TransformersEngine)
    assert engine.identity["dtype"] == "float32"
    assert engine.identity["packed"] == "false"
    assert engine.identity["batch_tokens"] == "99"


def test_an_unknown_engine_is_named() -> None:
    with pytest.raises(EngineError, match=r"engine: no such engine \(got 'abacus'\)"):
        load_engine(SimpleNamespace(engine="abacus"))  # type: ignore[arg-type]


def test_the_light_parts_import_no_torch() -> None:
    code = (
        "import sys, rlaif.engines.load, rlaif.engines.scripted, rlaif.engines.protocol;"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
