"""One way of doing the work of bench_work.py, in a process of its own: bench_ways.py starts it.

    python scripts/bench_way.py MODEL    then a line of JSON a job on stdin, a line each back

The ways, by name:
    packed      the transformers engine              unpacked   the same, prefixes not shared
    vllm        the vllm engine                      vllm-raw   a bare `LLM.generate`
    naive       a forward pass a label               generate   the library's, in batches of 64
    dense       unpadded batches of sequences as long as the mean question: a speed to stand beside
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import psutil

Job = dict[str, Any]
BATCH = 64


def main() -> None:
    model = sys.argv[1]
    for line in sys.stdin:
        job = json.loads(line)
        print(
            "@@" + json.dumps(WAYS[job["way"]](model, job) | {"peak_rss_mib": _peak()}), flush=True
        )


def _peak() -> int:
    """The most memory this process and its children have held, summed, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for child in psutil.Process().children(recursive=True):
        status = Path(f"/proc/{child.pid}/status").read_text()
        peak += next(int(x.split()[1]) for x in status.splitlines() if x.startswith("VmHWM"))
    return peak // 1024


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    made = work()
    return time.perf_counter() - start, made


# The engines of this package.


@cache
def _engine(model: str, way: str) -> Any:
    from rlaif.engines.load import load_engine
    from rlaif.recipe import Model

    given = {} if way != "unpacked" else {"pack": False}
    made = Model(model=model, engine="vllm" if way == "vllm" else "transformers", engine_args=given)
    return load_engine(made)


def by_engine(model: str, job: Job) -> Job:
    engine = _engine(model, job["way"])
    before = engine.usage.computed_tokens, engine.usage.generated_tokens
    seconds, made = _timed(lambda: (_label if job["do"] == "label" else _sample)(engine, job))
    return {
        "seconds": seconds,
        "tokens": engine.usage.computed_tokens - before[0],
        "generated": engine.usage.generated_tokens - before[1],
        "log_odds": made,
    }


@cache
def _questions(mode: str, count: int) -> Any:
    import bench_work

    return bench_work.questions(mode, count)  # type: ignore[arg-type]


def _labels(mode: str) -> Any:
    from rlaif.label.method import LABELS

    return LABELS[mode]  # type: ignore[index]


def _label(engine: Any, job: Job) -> list[float]:
    scores = engine.score_labels(_questions(job["mode"], job["prompts"]), _labels(job["mode"]))
    return [score.logprobs[0] - score.logprobs[1] for score in scores] if job.get("keep") else []


def _sample(engine: Any, job: Job) -> list[float]:
    import bench_work

    from rlaif.engines.protocol import Sampling

    chats = [record.prompt for record in bench_work.prompts(job["prompts"])]
    sampling = Sampling(n=bench_work.RESPONSES, max_tokens=job["max_tokens"])
    engine.generate(chats, sampling, list(range(len(chats))))
    return []


def whole(model: str, job: Job) -> Job:
    """Sample, judge and write the pairs, each stage durable, by one engine."""
    import shutil
    import tempfile

    import bench_work

    from rlaif import stages
    from rlaif.engines.protocol import Sampling
    from rlaif.label.method import Method
    from rlaif.label.templates import load_template
    from rlaif.recipe import Model, Prompts, Recipe
    from rlaif.run_folder import RunFolder

    engine, rules = _engine(model, job["way"].split()[0]), bench_work.constitution()
    folder = Path(tempfile.mkdtemp())
    file = bench_work.write_prompts(job["prompts"], folder / "prompts.jsonl")
    source = Prompts(path=str(file), shard_size=job.get("shard_size", 256))
    (folder / "rules.yaml").write_text("")
    section = Model(model=model)
    recipe = Recipe(run=str(folder / "run"), constitution=folder / "rules.yaml", student=section,
                    teacher=section, prompts=source)  # fmt: skip
    method = Method("pointwise", load_template("pointwise"))

    def work() -> None:
        run = RunFolder(folder / "run").create()
        asked = stages.store_prompts(run, "prompts", source)
        sampling = Sampling(n=bench_work.RESPONSES, max_tokens=bench_work.RESPONSE_TOKENS)
        samples = stages.store_samples(run, "samples", asked, engine, sampling, seed=0)
        verdicts = stages.store_verdicts(run, "verdicts", samples, engine, rules.principles, method)
        stages.store_picks(run, recipe, rules, "judge", samples, verdicts)

    seconds, _ = _timed(work)
    shutil.rmtree(folder)
    return {"seconds": seconds}


# What they are compared to: plain scripts.


@cache
def _plain(model: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    from rlaif.engines.checkpoint import choose_dtype

    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=choose_dtype("auto", None, device))
    return loaded.to(device).eval()


@cache
def _ids(model: str, mode: str, count: int) -> list[list[int]]:
    """The questions as token ids, in the order in which they are asked."""
    from transformers import AutoTokenizer

    from rlaif.engines.chat import ChatEncoder

    encoder = ChatEncoder(AutoTokenizer.from_pretrained(model), model)
    chats = _prompt_chats(count) if mode == "prompts" else _questions(mode, count)
    return [row for row in encoder.encode(chats) if isinstance(row, list)]


def _prompt_chats(count: int) -> list[Any]:
    import bench_work

    return [record.prompt for record in bench_work.prompts(count)]


def _label_ids(model: str, mode: str) -> list[list[int]]:
    from transformers import AutoTokenizer

    from rlaif.engines.label_tokens import label_token_ids

    return label_token_ids(AutoTokenizer.from_pretrained(model), _labels(mode), model)


def naive(model: str, job: Job) -> Job:
    import torch

    loaded = _plain(model)
    rows = _ids(model, job["mode"], job["prompts"])[:: job["every"]]
    words = [torch.tensor(i, device=loaded.device) for i in _label_ids(model, job["mode"])]

    @torch.inference_mode()
    def work() -> list[float]:
        odds = []
        for row in rows:
            ids = torch.tensor([row], device=loaded.device)
            chances = loaded(input_ids=ids).logits[0, -1].float().log_softmax(-1)
            odds.append(float(chances[words[0]].logsumexp(0) - chances[words[1]].logsumexp(0)))
        return odds

    seconds, odds = _timed(work)
    return {"seconds": seconds, "tokens": sum(map(len, rows)), "log_odds": odds}


def dense(model: str, job: Job) -> Job:
    import torch

    loaded, rows = _plain(model), _ids(model, job["mode"], job["prompts"])
    length = round(sum(map(len, rows)) / len(rows))
    many = max(1, job["pass_tokens"] // length)
    ids = torch.randint(10, 2000, (many, length), device=loaded.device)

    @torch.inference_mode()
    def work() -> None:
        for _ in range(job["passes"]):
            last = loaded(input_ids=ids, use_cache=False, logits_to_keep=1).logits
        float(last.sum())  # a GPU's work is done once it is looked at

    seconds, _ = _timed(work)
    return {"seconds": seconds, "tokens": ids.numel() * job["passes"]}


def generate(model: str, job: Job) -> Job:
    import bench_work
    import torch

    loaded = _plain(model)
    prompts = _ids(model, "prompts", job["prompts"])
    rows = [row for row in prompts for _ in range(bench_work.RESPONSES)]

    @torch.inference_mode()
    def work() -> int:
        said = 0
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            width = max(map(len, batch))
            ids = torch.tensor([[0] * (width - len(r)) + r for r in batch], device=loaded.device)
            mask = (ids > 0).long()
            out = loaded.generate(
                input_ids=ids, attention_mask=mask, do_sample=True, top_k=0, top_p=1.0,
                max_new_tokens=job["max_tokens"], pad_token_id=0,
            )  # fmt: skip
            said += int((out[:, width:] > 0).sum())
        return said

    seconds, said = _timed(work)
    return {"seconds": seconds, "generated": said}


@cache
def _llm(model: str) -> Any:
    import torch
    from vllm import LLM

    on_cpu = {} if torch.cuda.is_available() else {
        "block_size": 32, "distributed_executor_backend": "uni", "kv_cache_memory_bytes": 2**31,
        "enable_chunked_prefill": False,
    }  # fmt: skip
    return LLM(model=model, dtype="bfloat16", enable_prefix_caching=True, **on_cpu)


def _vllm(model: str, rows: Sequence[Sequence[int]], params: Any) -> list[Any]:
    out: list[Any] = _llm(model).generate(
        [{"prompt_token_ids": list(row)} for row in rows], params, use_tqdm=False
    )
    return out


def _scoring(ids: Sequence[int]) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=0.0, max_tokens=1, logprob_token_ids=list(ids), flat_logprobs=True,
        detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY,
    )  # fmt: skip


def _sampling(max_tokens: int, seed: int) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=1.0, max_tokens=max_tokens, seed=seed, detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )  # fmt: skip


def raw_vllm(model: str, job: Job) -> Job:
    llm = _llm(model)
    llm.reset_prefix_cache()
    if job["do"] == "sample":
        many = 4
        rows = [row for row in _ids(model, "prompts", job["prompts"]) for _ in range(many)]
        params = [_sampling(job["max_tokens"], seed) for seed in range(len(rows))]
        seconds, out = _timed(lambda: _vllm(model, rows, params))
        return {"seconds": seconds, "generated": sum(len(o.outputs[0].token_ids) for o in out)}
    rows = _ids(model, job["mode"], job["prompts"])
    ids = [i for word in _label_ids(model, job["mode"]) for i in word]
    seconds, out = _timed(lambda: _vllm(model, rows, _scoring(ids)))
    computed = sum(len(o.prompt_token_ids) - (o.num_cached_tokens or 0) for o in out)
    return {"seconds": seconds, "tokens": computed}


def expected(model: str, job: Job) -> Job:
    """What a cache of whole blocks has to compute: no engine, only the questions' tokens."""
    rows = sorted(_ids(model, job["mode"], job["prompts"])[:: job.get("every", 1)])
    block, computed, seen = job["block"], 0, set()
    for row in rows:
        blocks = [tuple(row[: k + block]) for k in range(0, len(row) - block + 1, block)]
        cached = sum(1 for b in blocks if b in seen and len(b) < len(row)) * block
        computed += len(row) - cached
        seen.update(blocks)
    from rlaif.engines.prefix import trie_floor

    return {"computed": computed, "floor": trie_floor(rows), "questions": len(rows),
            "mean_length": sum(map(len, rows)) / len(rows)}  # fmt: skip


def raw_whole(model: str, job: Job) -> Job:
    """The whole work as a plain vLLM script would do it, on token ids throughout."""
    import bench_work
    from transformers import AutoTokenizer

    from rlaif.label.templates import load_template

    tokenizer = AutoTokenizer.from_pretrained(model)
    _llm(model).reset_prefix_cache()

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def work() -> None:
        prompts, rules = bench_work.prompts(job["prompts"]), bench_work.constitution()
        asked = [ids(r.prompt[0].text) for r in prompts]
        before, after = ids("<s> user "), ids(" </s> <s> assistant ")
        rows = [before + prompt + after for prompt in asked for _ in range(bench_work.RESPONSES)]
        seeds = range(len(rows))
        params = [_sampling(bench_work.RESPONSE_TOKENS, seed) for seed in seeds]
        said = [list(o.outputs[0].token_ids) for o in _vllm(model, rows, params)]
        parts = [ids(part) for part in load_template("pointwise").parts[::2]]
        texts = [ids(p.text) for p in rules.principles]
        questions = [
            before + parts[0] + asked[i // bench_work.RESPONSES] + parts[1] + answer + parts[2]
            + text + parts[3] + after
            for i, answer in enumerate(said) for text in texts
        ]  # fmt: skip
        yes, no = _label_ids(model, "pointwise")
        out = _vllm(model, questions, _scoring([*yes, *no]))
        odds = [_odds(o.outputs[0].logprobs, yes, no) for o in out]
        many = len(texts)
        scores = [sum(odds[k : k + many]) for k in range(0, len(odds), many)]
        answers = tokenizer.batch_decode(said, skip_special_tokens=True)
        with Path(job["file"]).open("w") as file:
            for i, record in enumerate(prompts):
                own = range(i * bench_work.RESPONSES, (i + 1) * bench_work.RESPONSES)
                best, worst = max(own, key=scores.__getitem__), min(own, key=scores.__getitem__)
                pair = {"prompt": record.prompt[0].text, "chosen": answers[best],
                        "rejected": answers[worst]}  # fmt: skip
                file.write(json.dumps(pair) + "\n")

    seconds, _ = _timed(work)
    return {"seconds": seconds}


def _odds(flat: Any, yes: Sequence[int], no: Sequence[int]) -> float:
    import math

    chances = dict(zip(flat.token_ids, map(math.exp, flat.logprobs), strict=True))
    return math.log(sum(chances[i] for i in yes)) - math.log(sum(chances[i] for i in no))


WAYS: dict[str, Callable[[str, Job], Job]] = {
    "packed": by_engine,
    "unpacked": by_engine,
    "vllm": by_engine,
    "vllm-raw": raw_vllm,
    "naive": naive,
    "dense": dense,
    "generate": generate,
    "packed whole": whole,
    "vllm-raw whole": raw_whole,
    "expected": expected,
}


if __name__ == "__main__":
    main()
