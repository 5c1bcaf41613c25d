from __future__ import annotations

from rlaif.engines.protocol import Generation, Sampling
from rlaif.engines.scripted import ScriptedEngine
from rlaif.label.sample import sample
from rlaif.records import Drop, Response, Verdict, seed_of
from tests.label.scripted_judges import make_record

ONE, TWO, THREE = (make_record(prompt=p) for p in ("one", "two", "three"))


class SeedsSeen(ScriptedEngine):
    def generate(self, chats, sampling, seeds):  # type: ignore[no-untyped-def]
        self.seeds = dict(zip((chat[0].text for chat in chats), seeds, strict=True))
        return super().generate(chats, sampling, seeds)


def test_each_prompt_gets_its_own_responses() -> None:
    engine = ScriptedEngine({"one": ["a", "b"], "two": ["c", "d"]})
    records, drops = sample([ONE, TWO], engine, Sampling(n=2), 0)
    assert [[r.text for r in record.responses] for record in records] == [["a", "b"], ["c", "d"]]
    assert [record.id for record in records] == [ONE.id, TWO.id]
    assert drops == []


def test_what_is_not_served_is_kept_aside_and_shifts_nothing() -> None:
    long = Generation((), reason="too long: 9 of 8 tokens")
    engine = ScriptedEngine({"one": "a", "two": long, "three": "c"})
    records, drops = sample([ONE, TWO, THREE], engine, Sampling(), 0)
    assert [(r.prompt[0].text, r.responses[0].text) for r in records] == [
        ("one", "a"),
        ("three", "c"),
    ]
    assert drops == [Drop(TWO.id, "sample", "too long: 9 of 8 tokens")]


def test_no_response_without_a_reason_is_kept_aside_too() -> None:
    records, drops = sample([ONE], ScriptedEngine([Generation(())]), Sampling(), 0)
    assert (records, [d.reason for d in drops]) == ([], ["no responses"])


def test_fewer_empty_and_cut_responses_stay_as_they_are() -> None:
    found = (Response("", 0, "stop"), Response("half a", 2, "length"))
    [record], _ = sample([ONE], ScriptedEngine([Generation(found)]), Sampling(n=4), 0)
    assert record.responses == found


def test_seeds_follow_from_the_run_and_the_record_alone() -> None:
    engine = SeedsSeen(["a"])
    sample([ONE, TWO], engine, Sampling(), 7)
    first = engine.seeds
    sample([TWO, ONE, THREE], engine, Sampling(), 7)
    assert first.items() <= engine.seeds.items()
    assert first["one"] == seed_of(7, ONE.id)
    sample([ONE], engine, Sampling(), 8)
    assert engine.seeds["one"] != first["one"]


def test_verdicts_on_older_responses_do_not_stay() -> None:
    old = ONE.with_(verdicts=(Verdict("p", 0, None, 1.0, 1.0),))
    [record], _ = sample([old], ScriptedEngine(["a"]), Sampling(), 0)
    assert record.verdicts == ()


def test_nothing_to_sample_asks_nothing() -> None:
    assert sample([], ScriptedEngine(), Sampling(), 0) == ([], [])
