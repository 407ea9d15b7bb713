"""Configure the `tokenizers` library as the reference, and provide texts to compare with it."""

import inspect
import json
import os
import random
from pydoc_data.topics import topics

import tokenizers
from tokenizers import Regex, models, pre_tokenizers, trainers

from shared.tokenizers.byte_alphabet import bytes_to_unicode
from shared.tokenizers.pretokenize import PATTERNS

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread, like every test here

SCRIPTS = (
    "Der Fluß überflutet die Straße. Où êtes-vous ? Ça va bien, merci. ¿Qué hora es? Pchnąć w tę łódź jeża. "
    "Съешь же ещё этих мягких французских булок. Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. דג סקרן שט בים. "
    "نص حكيم له سر قاطع. ऋषियों को सताने वाले दुष्ट राक्षसों. いろはにほへと ちりぬるを。 色は匂へど 散りぬるを。 "
    "天地玄黃,宇宙洪荒。 키스의 고유조건은 입술끼리 만나야 하고. เป็นมนุษย์สุดประเสริฐ. "
    "١٢٣٤٥ ४५६ ⅔ Ⅷ ² 👩‍👩‍👧‍👦 🏳️‍🌈 e\u0301 \u1e9b\u0323 ﬁ "
)
_random = random.Random(0)
TEXTS = {
    "english": "\n".join(topics[name] for name in sorted(topics))[:60_000],
    "code": inspect.getsource(inspect)[:60_000],
    "many scripts": "".join(_random.choices(SCRIPTS.split(" "), k=2_000)) + " ".join(_random.choices(SCRIPTS, k=9_000)),
    "random bytes": _random.randbytes(20_000).decode("latin-1"),
    "words of two letters": " ".join("".join(_random.choices("ab", k=_random.randint(1, 9))) for _ in range(500)),
    "runs of one letter": " ".join("a" * _random.randint(1, 40) + "b" * _random.randint(0, 5) for _ in range(200)),
    "every pair once": "".join(map(chr, range(33, 127))),
    "empty": "",
}
ADVERSARIAL = (
    "",
    " ",
    "  ",
    "\n",
    " \n \n  x",
    "\r\n\r\n",
    "a\tb\t\tc",
    "a\u00a0b\u3000c\u2028d",
    "x\x85\x85y \x85z",
    "\x1c\x1d \x1e\x1fa",
    "'s 'S 'ſ 'll'LL'lL ''' don't DON'T",
    "'\u0130 '\u212a 'ſt x'ſs",
    "a_b__c",
    "_",
    "1a2b3",
    "1234567890",
    "٣٤٥٦",
    "½²Ⅷ",
    "🏳️‍🌈👩‍👩‍👧‍👦",
    "e\u0301\u0301\u0301",
    "\u200b\u200d\ufeff",
    "\ufffd\uffff\U0010ffff",
    "\x00\x7f\x80\x9f\xad",
    "ĠĊ Ġ",
    "\U00031350\U0001e4d0\U000105c0\U00010d40\U0001ccf0",
    "<|begin|><image> <|begin",
    "a" * 999,
    "ab" * 500,
    " " * 300 + "x",
)


def library(pattern: str = "llama3") -> tokenizers.Tokenizer:
    """An untrained tokenizer of the library that cuts words as ours does."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERNS[pattern]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return tokenizer


def trained_library(
    texts: list[str], vocab_size: int, pattern: str = "llama3", min_frequency: int = 1
) -> tokenizers.Tokenizer:
    tokenizer = library(pattern)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def merges_of(tokenizer: tokenizers.Tokenizer) -> list[tuple[str, str]]:
    return [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]


def spelled(merges: list[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(bytes_to_unicode(left), bytes_to_unicode(right)) for left, right in merges]
