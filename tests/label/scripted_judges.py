"""Records, constitutions and judges that say what a test tells them to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rlaif.constitution import Constitution, Principle
from rlaif.engines.scripted import Masses, ScriptedEngine
from rlaif.label.judge import judge
from rlaif.label.method import Method, Mode
from rlaif.label.templates import load_template
from rlaif.recipe import Pick
from rlaif.records import Chat, Message, Record, Response, Verdict, record_id


def make_record(*texts: str, prompt: str = "What is a tide?") -> Record:
    """A record with these responses; a word is a token."""
    chat = (Message("user", prompt),)
    responses = tuple(Response(text, len(text.split()), "stop") for text in texts)
    return Record(record_id(chat), chat, responses)


def make_constitution(*principles: str | Principle) -> Constitution:
    """A constitution of these principles; a text becomes one of weight 1 with an id of its own."""
    made = [
        p if isinstance(p, Principle) else Principle(id=f"p{i}", text=p)
        for i, p in enumerate(principles)
    ]
    return Constitution(name="test", principles=tuple(made))


def make_method(mode: Mode = "pointwise", *, reasoning: bool = False, **settings: float) -> Method:
    then = load_template("reasoning") if reasoning else None
    return Method(mode, load_template(mode), reasoning=then, **settings)


def data_of(chat: Chat) -> tuple[str, ...]:
    """What a question's data segments hold: prompt, response or two, principle."""
    assert isinstance(chat[0].content, tuple)
    return chat[0].content[1::2]


def pointwise_judge(say: Callable[[str, str], Masses], **engine: object) -> ScriptedEngine:
    """A judge by a function of the response and the principle."""

    def score(chat: Chat, labels: object) -> Masses:
        _, response, principle = data_of(chat)
        return say(response, principle)

    return ScriptedEngine(score=score, **engine)  # type: ignore[arg-type]


def pairwise_judge(say: Callable[[str, str, str], Masses]) -> ScriptedEngine:
    """A judge by a function of the response shown as A, the one shown as B and the principle."""

    def score(chat: Chat, labels: object) -> Masses:
        _, a, b, principle = data_of(chat)
        return say(a, b, principle)

    return ScriptedEngine(score=score)


def with_log_odds(record: Record, table: Sequence[Sequence[float | None]]) -> Record:
    """Pointwise verdicts on p0, p1, …: a row a principle, as `make_constitution` names texts."""
    verdicts = [
        Verdict(
            Principle(id="x", text=f"principle {p}").fingerprint,
            response,
            None,
            x,
            0.9,
            reason="the script abstains" if x is None else None,
        )
        for p, row in enumerate(table)
        for response, x in enumerate(row)
    ]
    return record.with_(verdicts=tuple(verdicts))


def rules(count: int, **changes: object) -> Constitution:
    """The constitution of `with_log_odds`: "principle 0", "principle 1", …, all changed alike."""
    texts = [f"principle {i}" for i in range(count)]
    return make_constitution(
        *(Principle(id=f"p{i}", text=text, **changes) for i, text in enumerate(texts))
    )


def judged(
    record: Record, engine: ScriptedEngine, constitution: Constitution, method: Method
) -> Record:
    [result] = judge([record], engine, constitution.principles, method)
    return result


def pick_settings(**changes: object) -> Pick:
    """The recipe's defaults, without a least margin for pairs."""
    return Pick(**{"pair_margin": 0.0, **changes})


def texts_of(rows: Sequence[dict[str, object]], *columns: str) -> list[tuple[str, ...]]:
    """The texts in these columns of each row."""
    return [tuple(row[c][0]["content"] for c in columns) for row in rows]  # type: ignore[index]
