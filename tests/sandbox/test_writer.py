"""The shipped writer is what it is for: it writes on the topic of the prompts that it is shown."""

from __future__ import annotations

import json
import random
from contextlib import closing

from rlaif.engines.protocol import Sampling
from rlaif.engines.transformers import TransformersEngine
from rlaif.label.templates import load_template
from rlaif.sandbox.forms import topic_examples
from rlaif.sandbox.phrases import TOPICS
from rlaif.sandbox.prompts import parse
from rlaif.sandbox.quickstart import HERE

MODELS = HERE / "models"


def on_topic(adapter: str | None) -> float:
    """Share of written texts that are prompts of the world on the topic of the examples."""
    topics = sorted(TOPICS) * 2
    shown = [topic_examples(t, 4, random.Random(i)) for i, t in enumerate(topics)]
    chats = [(load_template("new_prompt").message(examples="\n".join(s)),) for s in shown]
    with closing(TransformersEngine(str(MODELS / "teacher"), adapter=adapter)) as engine:
        written = engine.generate(
            chats, Sampling(temperature=0.7, max_tokens=40), list(range(len(chats)))
        )
    found = [parse(answer.responses[0].text) for answer in written]
    return sum(q is not None and q.topic == t for q, t in zip(found, topics, strict=True)) / len(
        topics
    )


def test_the_writer_follows_its_examples_and_the_teacher_does_not() -> None:
    assert on_topic(str(MODELS / "writer")) > 0.25
    assert on_topic(None) < 0.1


def test_the_writer_names_the_teacher_beside_it_and_no_machine() -> None:
    config = json.loads((MODELS / "writer" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "../teacher"
