from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from rlaif.engines.protocol import NO, YES, Engine, Sampling
from rlaif.engines.transformers import TransformersEngine
from rlaif.errors import EngineError
from rlaif.records import Chat, Message
from tests.tiny_models import CHATML, tiny_model_folder, tiny_tokenizer

GREEDY = Sampling(temperature=0.0, max_tokens=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def engine(folder: Path) -> TransformersEngine:
    return TransformersEngine(str(folder), dtype="float32")


def ask(text: str = "what is this") -> Chat:
    return (Message("user", text),)


def judge_prompts(prompts: int = 3, responses: int = 3, principles: int = 4) -> list[Chat]:
    return [
        (Message("user", ("Judge.\n", f"prompt {p}\n", f"response {p}.{r}\n", f"{k}? yes or no")),)
        for p in range(prompts)
        for r in range(responses)
        for k in range(principles)
    ]


def test_it_is_an_engine(engine: TransformersEngine) -> None:
    assert isinstance(engine, Engine)


def test_a_label_has_the_mass_of_its_forms_in_the_next_token(engine: TransformersEngine) -> None:
    [score] = engine.score_labels([ask()], [YES, NO])
    tokenizer, model = engine._tokenizer, engine._model
    text = "<|im_start|>user\nwhat is this<|im_end|>\n<|im_start|>assistant\n"
    with torch.inference_mode():
        logits = model(**tokenizer(text, return_tensors="pt")).logits[0, -1]
    chances = logits.softmax(-1)
    wanted = [
        sum(float(chances[i]) for i in range(len(tokenizer)) if tokenizer.decode([i]) in forms)
        for forms in ([*YES, *(f" {f}" for f in YES)], [*NO, *(f" {f}" for f in NO)])
    ]
    assert [math.exp(x) for x in score.logprobs or ()] == pytest.approx(wanted, rel=1e-4)


def test_packing_changes_no_score_and_saves_tokens(folder: Path) -> None:
    chats = judge_prompts()
    packed = TransformersEngine(str(folder), dtype="float32")
    plain = TransformersEngine(str(folder), dtype="float32", pack=False)
    ours = [s.logprobs for s in packed.score_labels(chats, [YES, NO])]
    theirs = [s.logprobs for s in plain.score_labels(chats, [YES, NO])]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, abs=1e-5)
    assert packed.usage.floor_tokens == plain.usage.floor_tokens
    assert packed.usage.floor_tokens <= packed.usage.computed_tokens < plain.usage.computed_tokens
    assert packed.usage.requests == len(chats)


def test_rows_too_long_for_the_context_have_a_reason(engine: TransformersEngine) -> None:
    long = ask("yes " * 600)
    scores = engine.score_labels([ask(), long], [YES, NO])
    assert scores[0].logprobs is not None
    assert scores[1].reason is not None
    assert scores[1].reason.endswith(" tokens, the context holds 512")
    # A prompt that fits alone but leaves no room for the answer.
    short, tight = engine.generate([ask(), ask("yes " * 480)], Sampling(max_tokens=50), [0, 1])
    assert len(short.responses) == 1
    assert tight.responses == ()
    assert tight.reason is not None and "and the answer 50, the context holds 512" in tight.reason


def test_the_context_can_be_filled_to_the_last_token(folder: Path) -> None:
    engine = TransformersEngine(str(folder), dtype="float32")
    [ids] = engine._encoder.encode([ask()])
    assert isinstance(ids, list)
    room = 512 - len(ids)
    [full] = engine.generate([ask()], Sampling(max_tokens=room + 1), [0])
    assert full.reason is None
    [over] = engine.generate([ask()], Sampling(max_tokens=room + 2), [0])
    assert over.reason is not None


def test_logits_that_are_not_finite_have_a_reason(folder: Path) -> None:
    engine = TransformersEngine(str(folder), dtype="float32")
    with torch.no_grad():
        engine._model.model.norm.weight.fill_(math.nan)
    for score in engine.score_labels(judge_prompts(1), [YES, NO]):
        assert score.logprobs is None
        assert score.reason == "the model's logits are not finite"
    [generation] = engine.generate([ask()], GREEDY, [0])
    assert generation.responses == ()
    assert generation.reason == "the model's logits are not finite"


def test_a_refused_chat_has_a_reason_and_stops_no_other(tmp_path: Path) -> None:
    template = (
        "{% if messages[0]['role'] == 'tool' %}{{ raise_exception('no tools') }}{% endif %}"
        + CHATML
    )
    folder = tiny_model_folder(tmp_path / "m", tokenizer=tiny_tokenizer(template))
    engine = TransformersEngine(str(folder), dtype="float32")
    refused, served = engine.score_labels([(Message("tool", "x"),), ask()], [YES, NO])
    assert refused.logprobs is None and "no tools" in (refused.reason or "")
    assert served.logprobs is not None


def test_calls_repeat_whatever_came_before_and_leave_the_dice_alone(
    engine: TransformersEngine,
) -> None:
    chats = [ask(f"prompt {i}") for i in range(5)]
    sampling = Sampling(n=2, max_tokens=10)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first = engine.generate(chats, sampling, range(5))
    engine.generate(chats, Sampling(n=3), range(5))
    engine.score_labels(judge_prompts(), [YES, NO])
    assert engine.generate(chats, sampling, range(5)) == first
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [len(g.responses) for g in first] == [2] * 5
    assert engine.generate(chats, sampling, range(1, 6)) != first


def test_threads_are_left_as_they_are(engine: TransformersEngine) -> None:
    before = torch.get_num_threads()
    engine.generate([ask()], GREEDY, [0])
    assert torch.get_num_threads() == before


def say(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch, *said: str) -> None:
    """Have the model say this, token by token; "END" is its end token."""
    ids: list[int] = []
    _ = engine._shares  # asks the model, too
    for part in said:
        end = engine._tokenizer.eos_token_id
        ids += [end] if part == "END" else engine._tokenizer.encode(part)
    turn = iter(ids)
    real = type(engine._model).forward

    def forward(self: Any, input_ids: Any, **more: Any) -> Any:
        out = real(self, input_ids=input_ids, **more)
        out.logits = torch.full_like(out.logits, -30.0)
        out.logits[..., next(turn)] = 30.0
        return out

    monkeypatch.setattr(type(engine._model), "forward", forward)


@pytest.mark.parametrize(
    ("said", "stop", "text", "tokens", "finish"),
    [
        (["yes", "END"], (), "yes", 2, "stop"),
        ([" \n yes no\n"], (), "yes no", None, "length"),
        (["A", "##", "B", "no no no no"], ("##",), "A", None, "stop"),
        (["A", "#", "B", "#", "B"] * 3, ("##",), "A#B#B" * 3, None, "length"),
        (["yes", "END"], ("##",), "yes", 2, "stop"),
    ],
    ids=["end token", "length", "stop string", "half a stop string", "end before stop"],
)
def test_how_a_response_ends(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: list[str],
    stop: tuple[str, ...],
    text: str,
    tokens: int | None,
    finish: str,
) -> None:
    engine = TransformersEngine(str(folder), dtype="float32")
    most = sum(1 if s == "END" else len(engine._tokenizer.encode(s)) for s in said)
    say(engine, monkeypatch, *said)
    sampling = Sampling(temperature=0.0, max_tokens=most, stop=stop)
    [generation] = engine.generate([ask()], sampling, [0])
    [response] = generation.responses
    assert (response.text, response.finish) == (text, finish)
    assert tokens is None or response.tokens == tokens
    if finish == "stop":
        assert response.tokens <= most


def test_a_stop_string_ends_the_response_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TransformersEngine(str(folder), dtype="float32")
    say(engine, monkeypatch, "A", "##", "B" * 30)
    [generation] = engine.generate([ask()], Sampling(max_tokens=30, stop=("##",)), [0])
    assert generation.responses[0].tokens == len(engine._tokenizer.encode("A##"))


def test_a_continuation_keeps_its_whitespace(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TransformersEngine(str(folder), dtype="float32")
    say(engine, monkeypatch, " yes", "END")
    chat = (*ask(), Message("assistant", "Verdict:"))
    [generation] = engine.generate([chat], GREEDY, [0])
    assert generation.responses[0].text == " yes"


def test_special_tokens_are_not_part_of_a_text(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TransformersEngine(str(folder), dtype="float32")
    say(engine, monkeypatch, "yes", "<|im_start|>", "no", "END")
    [generation] = engine.generate([ask()], GREEDY, [0])
    assert generation.responses[0].text == "yesno"


def test_the_model_own_sampling_settings_are_ignored_but_its_end_tokens_kept(
    folder: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    engine = TransformersEngine(str(folder), dtype="float32")
    wanted = engine.generate([ask()], Sampling(n=4, max_tokens=10), [0])
    (copy / "generation_config.json").write_text(
        '{"do_sample": true, "top_k": 1, "temperature": 0.01, "eos_token_id": [2, 7]}'
    )
    changed = TransformersEngine(str(copy), dtype="float32")
    found = changed.generate([ask()], Sampling(n=4, max_tokens=10), [0])
    assert [r.text[:3] for r in found[0].responses] == [r.text[:3] for r in wanted[0].responses]
    assert changed._ends == {2, 7}


def test_usage_counts_prompts_and_what_was_said(folder: Path) -> None:
    engine = TransformersEngine(str(folder), dtype="float32")
    [generation] = engine.generate([ask()], Sampling(n=3, max_tokens=5), [0])
    [ids] = engine._encoder.encode([ask()])
    assert isinstance(ids, list)
    assert engine.usage.requests == 1
    assert engine.usage.floor_tokens == len(ids)
    # Computed once for all three responses, and padded to a whole step.
    assert len(ids) <= engine.usage.computed_tokens < len(ids) + 32
    assert engine.usage.generated_tokens == sum(r.tokens for r in generation.responses)


def test_identity_follows_the_files_not_the_path(folder: Path, tmp_path: Path) -> None:
    def identity(path: Path, **arguments: Any) -> dict[str, str]:
        return dict(TransformersEngine(str(path), **arguments).identity)

    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "README.md").write_text("nothing that counts")
    assert identity(copy) == identity(folder)
    other = tiny_model_folder(tmp_path / "other", seed=1)
    assert identity(other)["model"] != identity(folder)["model"]
    (copy / "chat_template.jinja").write_text(CHATML + " ")
    assert identity(copy)["model"] != identity(folder)["model"]
    for arguments in (
        {"dtype": "float16"},
        {"pack": False},
        {"batch_tokens": 7},
        {"template_arguments": {"enable_thinking": False}},
        {"attn_implementation": "eager"},
    ):
        assert identity(folder, **arguments) != identity(folder)


def test_identity_needs_no_weights(folder: Path) -> None:
    engine = TransformersEngine(str(folder))
    assert engine.identity["model"]
    assert "_model" not in engine.__dict__


def test_a_closed_engine_holds_no_model_and_says_so(folder: Path) -> None:
    engine = TransformersEngine(str(folder), dtype="float32")
    engine.score_labels([ask()], [YES, NO])
    engine.close()
    assert "_model" not in engine.__dict__ and "_scorer" not in engine.__dict__
    with pytest.raises(EngineError, match="was closed"):
        engine.generate([ask()], GREEDY, [0])


def test_nothing_in_nothing_out(engine: TransformersEngine) -> None:
    assert engine.generate([], GREEDY, []) == []
    assert engine.score_labels([], [YES, NO]) == []


def test_seeds_must_match_the_chats(engine: TransformersEngine) -> None:
    with pytest.raises(ValueError, match="1 chats but 2 seeds"):
        engine.generate([ask()], GREEDY, [0, 1])


def test_a_label_that_is_no_token_is_an_error(engine: TransformersEngine) -> None:
    with pytest.raises(EngineError, match="'perhaps' is not a single token"):
        engine.score_labels([ask()], [YES, ("perhaps",)])


def test_padding_falls_back_to_the_end_token(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "m", tokenizer=tiny_tokenizer(pad_token=None))
    assert TransformersEngine(str(folder))._pad == 2
    neither = tiny_tokenizer(pad_token=None, eos_token=None)
    folder = tiny_model_folder(tmp_path / "n", tokenizer=neither)
    with pytest.raises(EngineError, match="neither a padding token nor an end token"):
        TransformersEngine(str(folder))


def test_batches_of_any_size_say_the_same(folder: Path) -> None:
    chats = [ask("yes " * i) for i in range(1, 9)]
    large = TransformersEngine(str(folder), dtype="float32")
    small = TransformersEngine(str(folder), dtype="float32")
    small._sampling_budget.tokens = 60
    sampling = Sampling(n=2, max_tokens=10)
    assert large.generate(chats, sampling, range(8)) == small.generate(chats, sampling, range(8))
