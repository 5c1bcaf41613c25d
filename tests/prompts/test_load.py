from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.errors import DataError
from rlaif.prompts.load import load_prompts, shards
from rlaif.recipe import Prompts
from rlaif.records import Drop, Message, Record, record_id

USER = {"role": "user", "content": "How?"}
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Hello!"},
    USER,
]


def load(path: Path, **options: object) -> list[Record | Drop]:
    return list(load_prompts(Prompts(path=str(path), **options)))


def asked(rows: list[Record | Drop]) -> list[str]:
    return [row.prompt[-1].text for row in rows if isinstance(row, Record)]


def dropped(rows: list[Record | Drop]) -> list[tuple[str, str]]:
    return [(row.id, row.reason) for row in rows if isinstance(row, Drop)]


def write_jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_parquet(path: Path, **columns: list) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture(autouse=True)
def no_hub(monkeypatch) -> None:
    def refuse(*args, **kwargs):
        raise ConnectionError("Couldn't reach the Hub\nand so on")

    monkeypatch.setattr(datasets, "load_dataset", refuse)


def test_a_string_is_one_user_message_and_a_list_is_the_chat(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "p.jsonl", {"prompt": " How?\n"}, {"prompt": CHAT})
    plain, chat = load(path)
    assert plain.prompt == (Message("user", " How?\n"),)  # the text is not touched
    assert plain.id == record_id(plain.prompt) and plain.responses == ()
    assert [m.role for m in chat.prompt] == ["system", "user", "assistant", "user"]


def test_every_kind_of_file_gives_the_same_prompts(tmp_path: Path) -> None:
    rows = [{"prompt": "one", "x": 1}, {"prompt": "two", "x": 2}]
    write_jsonl(tmp_path / "a.jsonl", *rows)
    (tmp_path / "a.json").write_text(json.dumps(rows))
    write_parquet(tmp_path / "a.parquet", prompt=["one", "two"], x=[1, 2])
    (tmp_path / "a.txt").write_text("one\n\n  two  \n")
    for kind in ("jsonl", "json", "parquet", "txt"):
        assert asked(load(tmp_path / f"a.{kind}")) == ["one", "two"], kind


def test_chats_in_parquet(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", question=[CHAT, [USER, {"role": "user"}], None])
    rows = load(path, column="question")
    assert [m.text for m in rows[0].prompt] == [m["content"] for m in CHAT]
    assert dropped(rows) == [("a.parquet:2", "content is not text"), ("a.parquet:3", "empty text")]


def test_marks_and_line_ends_of_other_systems(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "one"}\r\n\r\n{"prompt": "two"}\r\n\n  \n')
    assert asked(load(path)) == ["one", "two"]
    path = tmp_path / "p.txt"
    path.write_bytes("\ufeffone\r\ntwo\r\n\r\n".encode())
    assert asked(load(path)) == ["one", "two"]
    path = tmp_path / "p.json"
    path.write_bytes(b'\xef\xbb\xbf[{"prompt": "one"}]')
    assert asked(load(path)) == ["one"]


BAD_LINES = [
    (b'{"prompt": "cut', "not valid JSON"),
    (b"[" * 100_000, "not valid JSON"),
    (b'{"prompt": ' + b"9" * 5000 + b"}", "not valid JSON"),
    (b'{"prompt": "\xff"}', "not UTF-8"),
    (b'"text"', "not a JSON object"),
    (b'{"question": "x"}', "missing column"),
    (b'{"prompt": ""}', "empty text"),
    (b'{"prompt": " \\n"}', "empty text"),
    (b'{"prompt": null}', "empty text"),
    (b'{"prompt": []}', "empty text"),
    (b'{"prompt": 7}', "neither text nor a list of messages"),
    (b'{"prompt": {"role": "user"}}', "neither text nor a list of messages"),
    (b'{"prompt": ["How?"]}', "not a message with role and content"),
    (b'{"prompt": [{"from": "human", "value": "x"}]}', "not a message with role and content"),
    (b'{"prompt": [{"role": "robot", "content": "x"}]}', "unknown role"),
    (b'{"prompt": [{"role": ["user"], "content": "x"}]}', "unknown role"),
    (b'{"prompt": [{"role": "user", "content": [{"text": "x"}]}]}', "content is not text"),
    (b'{"prompt": [{"role": "user", "content": " "}]}', "empty text"),
    (b'{"prompt": "\\ud800"}', "not valid Unicode"),
    (
        b'{"prompt": [{"role": "assistant", "content": "x"}]}',
        "the last message is not the user's",
    ),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES)
def test_a_bad_row_is_kept_aside_with_its_line_and_the_rest_goes_on(tmp_path, line, reason) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"prompt": "one"}\n\n' + line + b'\n{"prompt": "two"}\n')
    rows = load(path)
    assert asked(rows) == ["one", "two"]
    assert dropped(rows) == [("p.jsonl:3", reason)]
    assert all(row.stage == "prompts" for row in rows if isinstance(row, Drop))


def test_bad_rows_of_a_list_and_of_a_text_file(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('["x", {"prompt": "one"}]')
    assert dropped(load(tmp_path / "p.json")) == [("p.json:1", "not a JSON object")]
    (tmp_path / "p.txt").write_bytes(b"one\n\xff\n")
    assert dropped(load(tmp_path / "p.txt")) == [("p.txt:2", "not UTF-8")]


def test_bytes_that_are_no_text_in_parquet(tmp_path: Path) -> None:
    broken = pa.array([b"one", b"\xff"]).view(pa.string())
    path = write_parquet(tmp_path / "p.parquet", prompt=broken)
    assert dropped(load(path)) == [("p.parquet:2", "not UTF-8")]


def test_exact_duplicates_are_dropped_and_name_their_record(tmp_path: Path) -> None:
    rows = load(
        write_jsonl(tmp_path / "p.jsonl", *({"prompt": p} for p in ("a", "b", [USER], "a")))
    )
    (drop,) = [row for row in rows if isinstance(row, Drop)]
    assert (drop.id, drop.reason) == ("p.jsonl:4", "duplicate prompt")
    assert rows[0].id in drop.detail


def test_the_limit_counts_usable_prompts_and_reads_no_further(tmp_path: Path) -> None:
    prompts = ("a", "", "a", "b", "c", "d")
    rows = load(write_jsonl(tmp_path / "p.jsonl", *({"prompt": p} for p in prompts)), limit=3)
    assert asked(rows) == ["a", "b", "c"]
    assert len(dropped(rows)) == 2


def test_a_folder_is_read_by_name_and_its_subfolders_are_not(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "b.jsonl", {"prompt": "two"})
    write_parquet(tmp_path / "a.parquet", prompt=["one", ""])
    (tmp_path / "README.md").write_text("not a prompt")
    (tmp_path / "held_out").mkdir()
    write_jsonl(tmp_path / "held_out" / "c.jsonl", {"prompt": "three"})
    rows = load(tmp_path)
    assert asked(rows) == ["one", "two"]
    assert dropped(rows) == [("a.parquet:2", "empty text")]


@pytest.mark.parametrize("key", ["path", "dataset"])
def test_a_saved_dataset(tmp_path: Path, key: str) -> None:
    saved = datasets.Dataset.from_dict({"prompt": [CHAT, CHAT], "x": [1, 2]}).with_format("numpy")
    saved.save_to_disk(tmp_path / "saved")
    rows = list(load_prompts(Prompts(**{key: str(tmp_path / "saved")})))
    assert asked(rows) == ["How?"]
    assert dropped(rows) == [("saved:2", "duplicate prompt")]


def test_a_saved_dataset_with_splits(tmp_path: Path) -> None:
    splits = {name: datasets.Dataset.from_dict({"prompt": [name]}) for name in ("train", "test")}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    assert asked(load(tmp_path / "saved", split="test")) == ["test"]
    with pytest.raises(DataError, match=r"no such split.*'dev'.*one of: train, test"):
        load(tmp_path / "saved", split="dev")


def test_a_dataset_by_name(monkeypatch) -> None:
    calls = []

    def load_dataset(*args, **kwargs):
        calls.append((args, kwargs))
        return datasets.Dataset.from_dict({"text": ["one", " "]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = Prompts(dataset="org/name", config="en", split="train[:9]", column="text")
    rows = list(load_prompts(source))
    assert calls == [(("org/name", "en"), {"split": "train[:9]"})]
    assert asked(rows) == ["one"] and dropped(rows) == [("org/name:2", "empty text")]


def test_a_dataset_that_cannot_be_reached_is_told_in_one_line() -> None:
    with pytest.raises(DataError, match="org/name: cannot be loaded: Couldn't reach") as caught:
        list(load_prompts(Prompts(dataset="org/name")))
    assert "\n" not in str(caught.value)


WRONG_COLUMN = (
    r"no usable prompt; missing column in 2 of 2 rows, first p\.jsonl:1 \(the row has: q, id\) "
    r"\(got 'prompt'\); mend the rows, or name the column"
)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.jsonl", "", "holds no rows"),
        ("p.jsonl", '{"q": "x", "id": 1}\n' * 2, WRONG_COLUMN),
        ("p.jsonl", '{"prompt": ""}\n', "no usable prompt; empty text in 1 of 1 rows"),
        ("p.json", '[{"prompt": "a"},\n{"prompt": }]', r"p.json:2: is not valid JSON.*\.jsonl"),
        ("p.json", '{"prompt": "a"}', "is not a JSON list"),
        ("p.csv", "prompt\na\n", r"of a kind that cannot be read; use one of \.jsonl, \.json"),
        ("p.parquet", "not Parquet", "cannot be read: .*check the file"),
    ],
)
def test_a_source_without_a_usable_prompt_is_told_in_one_line(
    tmp_path, name, text, message
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_source_column_or_file_in_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no \.parquet and no \.jsonl"):
        load(tmp_path)
    write_parquet(tmp_path / "a.parquet", question=["x"], id=[1])
    with pytest.raises(
        DataError, match=r"no such column \(got 'prompt'\); name one of: question, id"
    ):
        load(tmp_path)


def test_a_large_jsonl_file_is_not_held_in_memory(tmp_path: Path) -> None:
    long = "x" * 200_000
    path = write_jsonl(tmp_path / "p.jsonl", *({"prompt": f"{i} {long}"} for i in range(50)))
    tracemalloc.start()
    try:
        assert sum(1 for _ in load_prompts(Prompts(path=str(path)))) == 50
        assert tracemalloc.get_traced_memory()[1] < path.stat().st_size / 4
    finally:
        tracemalloc.stop()


def test_a_large_parquet_file_is_read_only_as_far_as_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    prompts = [f"prompt {i}" for i in range(5000)]
    pq.write_table(pa.table({"prompt": prompts}), path, row_group_size=100)
    data = path.read_bytes()
    late = data.index(b"prompt 4000")
    path.write_bytes(data[:late] + bytes(2000) + data[late + 2000 :])
    assert asked(load(path, limit=1000)) == prompts[:1000]
    with pytest.raises(DataError, match="cannot be read"):
        load(path)


rows_of_a_source = st.lists(
    st.builds(lambda i: Record(str(i), ()), st.integers()) | st.just(Drop("x:1", "prompts", "bad"))
)


@settings(deadline=None)
@given(rows_of_a_source, st.integers(1, 5))
def test_shards_lose_nothing_and_are_full_but_for_the_last(rows, size) -> None:
    cut = list(shards(rows, size))
    assert [r for records, _ in cut for r in records] == [r for r in rows if isinstance(r, Record)]
    assert sum(len(drops) for _, drops in cut) == sum(isinstance(r, Drop) for r in rows)
    assert all(len(records) == size for records, _ in cut[:-1])
    assert all(records for records, _ in cut) or not any(isinstance(r, Record) for r in rows)
