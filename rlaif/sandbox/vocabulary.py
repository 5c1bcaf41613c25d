"""The sandbox's tokenizer: one token a word, made from everything the world can say.

A word-level tokenizer keeps the models small enough to ship. It still goes through the same
`AutoTokenizer` and chat-template path as any other model's.
"""

from __future__ import annotations

from importlib import resources

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rlaif.sandbox import phrases as say
from rlaif.sandbox.forms import observation
from rlaif.sandbox.principles import FRAMES, PREDICATES
from rlaif.sandbox.prompts import KINDS, all_questions, words

SPECIAL = ("<|pad|>", "<|unknown|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}"
    "{% if not (loop.last and continue_final_message) %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_EXTRA = (
    "A B 1 2 3 4 5 For Against user assistant system : Verdict : yes no keeps breaks nothing "
    "\" ' ( ) - ; ! ?"
)


def _texts() -> list[str]:
    found = [
        t.read_text("utf-8")
        for t in sorted(
            resources.files("rlaif").joinpath("templates").iterdir(), key=lambda t: t.name
        )
        if t.name.endswith(".txt")
    ]
    found += [*say.OPENERS, _EXTRA]
    for kind in KINDS:
        found += all_questions(kind)
    found += [str(c) for c in range(2, 19)]
    for questions_answers in say.FACTS.values():
        found += questions_answers[1]
        found += questions_answers[2].values()
    found += [*say.SUM_ANSWERS, *say.DANGER_TOOLS, *say.DANGER_PLANS, *say.HELP_ANSWERS]
    found += [*say.REFUSALS, *say.ADVICE_ANSWERS, *say.GUESSES, *say.GUESS_ANSWERS]
    found += [*say.ADMISSIONS, *say.NOTE_ANSWERS, *say.LEAK_ANSWERS]
    for topic in say.TOPICS.values():
        found += [*topic.tools, *topic.tips]
    for sentences in say.MANNERS.values():
        found += sentences
    for attribute, p in PREDICATES.items():
        found += [*p.has, *p.lacks, *p.held_out, *p.held_out_not]
        found += [observation(attribute, True), observation(attribute, False)]
    found += [frame for frame, _ in FRAMES]
    found += [
        "The principle is kept.", "The principle is broken.", "The principle does not apply.",
        "It says nothing of the kind, so it keeps the principle and so it",
    ]  # fmt: skip
    return found


def vocabulary() -> list[str]:
    """Every word of the world, sorted, behind the special tokens."""
    known = {word for text in _texts() for word in words(text)}
    return [*SPECIAL, *sorted(known)]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer, with a chat template, as a Hugging Face fast tokenizer."""
    vocab = {word: i for i, word in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<|unknown|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        Regex(r"\w+|[^\w\s]"), behavior="removed", invert=True
    )
    # Words apart by spaces, marks on the word before them: "Hello there." and "Verdict:".
    tokenizer.decoder = decoders.Sequence(
        [decoders.WordPiece(prefix="##", cleanup=True), decoders.Fuse(),
         decoders.Replace(" :", ":")]
    )  # fmt: skip
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<|unknown|>",
        pad_token="<|pad|>",
        eos_token="<|end|>",
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
