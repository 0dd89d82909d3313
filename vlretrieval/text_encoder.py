"""TextEncoder: words -> vector. The only room that knows Hugging Face's libraries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medseg.errors import ConfigError, ModelIntegrityError, UnknownModelError
from medseg.inference.backends.predictor import needs
from vlretrieval.reports.sentences import split_sentences
from vlretrieval.weights import advice, find_weights

VOCABULARY = Path(__file__).with_name("vocabulary.json")
MAX_TOKENS = 512
# hidden size, layers, heads, inner size
SHAPES: dict[str, tuple[int, int, int, int]] = {
    "bert-base": (768, 12, 12, 3072),
    "scratch": (128, 3, 4, 512),
}
Texts = Sequence[str] | Tensor | Mapping[str, Tensor]


@dataclass(frozen=True)
class Tokens:
    """ids [S, L] padded by `pad`, and the text [S] to which every row (a sentence, or a whole text) belongs."""

    ids: Tensor
    owner: Tensor
    count: int


class TextEncoder(nn.Module):
    """Texts as vectors.

    Args:
        pretrained: `bert-base` (768 wide), `scratch` (small, by sentences), or a folder in Hugging Face's layout.
        weights: folder with the pretrained weights of that shape; sought in $VLRETRIEVAL_WEIGHTS if not given. Where
            there is none, a named shape starts from random numbers with the vocabulary that comes along.
        vocabulary: tokenizer.json in place of the one that comes along or lies beside the weights.
        by_sentence: a text's vector is the mean of its sentences', so that no report is too long. True for `scratch`.

    Raises:
        UnknownModelError: neither a known shape nor a folder on this machine; nothing is downloaded.
        ModelIntegrityError: the folder holds something else.
    """

    def __init__(
        self,
        pretrained: str | Path = "bert-base",
        *,
        weights: str | Path | None = None,
        vocabulary: str | Path | None = None,
        by_sentence: bool | None = None,
        shape: tuple[int, int, int, int] | None = None,
    ) -> None:
        super().__init__()
        self.name = str(pretrained)
        self.by_sentence = self.name == "scratch" if by_sentence is None else by_sentence
        folder = _folder(self.name, weights)
        self.tokenizer = _tokenizer(vocabulary, folder)
        self.pad = self.tokenizer.token_to_id("[PAD]") or 0
        if folder is None:
            self.network = _build(shape or SHAPES[self.name], self.tokenizer.get_vocab_size(), self.pad)
            self.origin = "random"
        else:
            self.network = _load(folder)
            self.origin = folder.name
        self.output_dim = int(self.network.config.hidden_size)
        self.max_tokens = min(MAX_TOKENS, int(getattr(self.network.config, "max_position_embeddings", MAX_TOKENS)))

    def tokenise(self, texts: Sequence[str]) -> Tokens:
        """Texts -> padded ids; by sentences where the encoder works so. An empty text is one empty sentence."""
        parts = [(split_sentences(text) or [""]) if self.by_sentence else [text] for text in texts]
        owner = [number for number, sentences in enumerate(parts) for _ in sentences]
        rows = self.tokenise_rows([sentence for sentences in parts for sentence in sentences])
        return Tokens(rows, torch.tensor(owner), len(texts))

    def tokenise_rows(self, rows: Sequence[str]) -> Tensor:
        """[S, L] ids, one row for each string."""
        return self._padded([row.ids[: self.max_tokens] for row in self.tokenizer.encode_batch(list(rows))])

    def _padded(self, rows: list[list[int]]) -> Tensor:
        longest = max((len(row) for row in rows), default=1)
        ids = torch.full((len(rows), max(1, longest)), self.pad, dtype=torch.long)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row, dtype=torch.long)
        return ids

    def encode_rows(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """[S, L] ids -> [S, output_dim]: the mean over a row's tokens."""
        mask = (ids != self.pad) if mask is None else mask.bool()
        mask = mask | (torch.arange(ids.shape[1], device=ids.device) == 0)  # never an empty row
        hidden = self.network(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weight).sum(dim=1) / weight.sum(dim=1)

    def forward(self, texts: Texts) -> Tensor:
        """Strings, ids [B, L], or what a Hugging Face tokenizer gives -> [B, output_dim]."""
        if isinstance(texts, Mapping):
            return self.encode_rows(texts["input_ids"], texts.get("attention_mask"))
        if isinstance(texts, Tensor):
            return self.encode_rows(texts)
        tokens = self.tokenise([texts] if isinstance(texts, str) else list(texts))
        device = next(self.parameters()).device
        return mean_by_owner(self.encode_rows(tokens.ids.to(device)), tokens.owner.to(device), tokens.count)

    def save(self, folder: Path) -> None:
        """Write in Hugging Face's layout, so that one reader serves all.

        Raises:
            OutputError: it could not be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.network.save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save(str(folder / "tokenizer.json"))


def mean_by_owner(rows: Tensor, owner: Tensor, count: int) -> Tensor:
    """[S, D] rows -> [count, D]: the mean of each owner's rows."""
    total = rows.new_zeros(count, rows.shape[1]).index_add(0, owner, rows)
    share = rows.new_zeros(count).index_add(0, owner, rows.new_ones(len(rows)))
    return total / share.clamp(min=1).unsqueeze(1)


def _folder(name: str, weights: str | Path | None) -> Path | None:
    if name in SHAPES:
        return find_weights(name, weights) if name != "scratch" or weights else None
    path = Path(weights or name).expanduser()
    if path.is_dir():
        return path
    found = find_weights(name, None) if "/" not in name else None
    if found is None:
        known = ", ".join(SHAPES)
        raise UnknownModelError(
            f"There is no text encoder {name!r} on this machine ({known}, or a folder), and none is downloaded.",
            advice=advice(name),
        )
    return found


def _tokenizer(vocabulary: str | Path | None, folder: Path | None) -> Any:
    with needs("tokenizers", "retrieval"):
        from tokenizers import BertWordPieceTokenizer, Tokenizer
    if vocabulary is None and folder is not None:
        if not (folder / "tokenizer.json").is_file() and (folder / "vocab.txt").is_file():
            return BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True)
        vocabulary = folder / "tokenizer.json"
    path = Path(vocabulary or VOCABULARY)
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare exceptions
        raise ModelIntegrityError(f"{path.name} is no tokenizer: {error}.", advice=advice("bert-base")) from error


def _build(shape: tuple[int, int, int, int], words: int, pad: int) -> Any:
    with needs("transformers", "retrieval"):
        from transformers import BertConfig, BertModel
    hidden, layers, heads, inner = shape
    config = BertConfig(
        vocab_size=words,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=MAX_TOKENS,
        pad_token_id=pad,
    )
    return BertModel(config, add_pooling_layer=False)


def _load(folder: Path) -> Any:
    with needs("transformers", "retrieval"):
        from transformers import AutoModel
    if not any(folder.glob("*.safetensors")):
        raise ModelIntegrityError(
            f"{folder} holds no .safetensors; pickles are not opened.", advice=advice(folder.name)
        )
    try:
        return AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelIntegrityError(f"{folder} is no model in Hugging Face's layout: {first}") from error


def train_vocabulary(texts: Iterable[str], path: Path, size: int = 2000) -> None:
    """Learn a WordPiece vocabulary (lower case; every Chinese character is a word) and write tokenizer.json.

    Raises:
        ConfigError: there is no text.
    """
    with needs("tokenizers", "retrieval"):
        from tokenizers import BertWordPieceTokenizer
    corpus = [text for text in texts if text.strip()]
    if not corpus:
        raise ConfigError("There is no text to learn a vocabulary from.")
    tokenizer = BertWordPieceTokenizer(lowercase=True)
    tokenizer.train_from_iterator(corpus, vocab_size=size, min_frequency=1, show_progress=False)
    tokenizer.save(str(path))
