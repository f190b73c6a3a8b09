"""An export, opened to be asked: from an input to what its program takes, and from what that says to an answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch

from launcher.answers.finder import Finder
from launcher.answers.texts import going_on, written
from launcher.errors import ConfigError, RunError
from launcher.exported import folder
from launcher.exported.folder import Folder
from launcher.predict.guards import Nearness
from launcher.predict.images import Images, Refused
from launcher.predict.program import Program
from launcher.predict.rows import Rows

UNSURE = "unsure"
_ROWS = ("table", "array", "tensors")
_SUM_OFF = 1e-3
"""By which probabilities may miss 1: they are float32."""


class Asked(NamedTuple):
    """What somebody may choose."""

    unsure: float = 0.5
    """Confidence below which the answer is `unsure`; of boxes, those below it are left out. 0: never."""
    top: int = 1
    """Classes that an answer has."""
    classes: Sequence[str] = ()
    """The only ones that may be answered; none: all."""
    tokens: int = 100
    """That a text goes on by."""


class Ready(NamedTuple):
    """An input as the program takes it; a picture's pixels before they are standardised, which a batch of them is at once."""

    tensor: torch.Tensor
    guards: Sequence[str] = ()
    size: tuple[int, int] = (0, 0)
    """Of a picture, (width, height) in pixels."""


class Predictor:
    """Answers are dicts that JSON has: `prediction` first, `guards` last, a list of lines that is empty where nothing is odd."""

    def __init__(self, path: Path, device: torch.device | None = None, asked: Asked | None = None) -> None:
        """Raises RunError where the folder is no export, is not whole, or has no program; ConfigError for a class that it has not."""
        self.folder = Folder(path)
        self.told, self.asked = self.folder.told, asked or Asked()
        self.predicts: str = self.told["predicts"]
        self.device = device or torch.device("cpu")
        if folder.PROGRAM not in self.folder:
            why = self.told["missing"].get("program", "nobody has said why")
            raise RunError(f"{path}: it has no program that could be run ({why}); export a model that torch.export can trace")
        from safetensors.torch import load

        self._program = Program(self.folder.read(folder.PROGRAM), load(self.folder.read(folder.WEIGHTS)), self.device)
        self.preprocessing: Mapping[str, Any] = self.folder.json(folder.PREPROCESSING)
        self.labels = self._read_labels(path)
        if strange := [name for name in self.asked.classes if name not in self.labels]:
            raise ConfigError(f"classes={strange[0]}: the model has {', '.join(self.labels[:20])}; type some of those")
        try:
            kind, shape = self.preprocessing["kind"], self.told["inputs"][0]["shape"]
            if kind not in ("image", "text", *_ROWS):
                raise ValueError(f"inputs of the kind {kind!r:.40}")
            self.images = Images(self.preprocessing, shape, self.told.get("channels_last") is True) if kind == "image" else None
            self.rows = Rows(self.preprocessing, shape) if kind in _ROWS else None
            self._nearness = Nearness(self.folder.json(folder.GUARDS)) if folder.GUARDS in self.folder else None
            self._finder = Finder(**self.told["predicting"]) if self.predicts == "boxes" else None
            self._tokenizer = self._opened_tokenizer() if kind == "text" else None
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise RunError(f"{path}: what it says of its inputs has no sense here ({error}); export the run again") from error

    def picture(self, raw: bytes) -> Ready:
        """Raises Refused."""
        if self.images is None:
            raise Refused(f"it is a picture, and the model takes {self.preprocessing['kind']}")
        found = self.images(raw)
        return Ready(found.pixels, found.guards, found.size)

    def row(self, values: Any) -> Ready:
        """Of a table a mapping by column; else numbers. Raises Refused."""
        if self.rows is None:
            raise Refused(f"it is a row, and the model takes {self.preprocessing['kind']}")
        return Ready(self.rows(values))

    @torch.inference_mode()
    def predict(self, batch: Sequence[Ready]) -> list[dict[str, Any]]:
        """An answer for each, in their order. Raises RunError where the program fails."""
        inputs = torch.stack([each.tensor for each in batch]).to(self.device)
        if self.images is not None:
            inputs = self.images.standardised(inputs)
        far = self._nearness.far(inputs) if self._nearness is not None else [(0.0, "")] * len(batch)
        try:
            outputs = self._program(inputs)
        except RuntimeError as error:
            raise RunError(
                f"the program fails ({str(error).splitlines()[0][:160]}); type a smaller batch_size=, or another device="
            ) from error
        answers = self._answers(outputs, batch)
        for answer, ready, (share, said) in zip(answers, batch, far, strict=True):
            answer["distance"] = round(share, 4) if math.isfinite(share) else None
            answer["guards"] = [*ready.guards, *([said] if said else []), *answer.pop("guards", [])]
        return answers

    def text(self, prompt: str, seed: int = 0) -> Any:
        """What the model goes on with, piece by piece. Raises Refused."""
        if self._tokenizer is None:
            raise Refused(f"it is a text, and the model takes {self.preprocessing['kind']}")
        encode, decode = self._tokenizer
        try:
            prompt.encode()
        except UnicodeEncodeError as error:  # bytes of a command line or of stdin
            raise Refused("it has bytes that are no UTF-8") from error
        tokens = torch.tensor([encode(prompt)], dtype=torch.int64, device=self.device)
        if not tokens.numel():
            raise Refused("it is empty: there is nothing to go on with")
        most = self.told["outputs"][0]["shape"][-1]
        if int(tokens.max()) >= most:
            raise Refused(f"it has tokens beyond the {most} of the model")
        temperature = float(self.told["predicting"].get("temperature", 1.0))
        drawn: list[int] = []
        shown = ""
        for token in going_on(self._program, tokens, self.asked.tokens, int(self.preprocessing["length"]), temperature, seed=seed):
            drawn.append(int(token))
            now = decode(drawn).rstrip("\ufffd")  # half a letter
            if now.startswith(shown):
                yield now[len(shown) :]
                shown = now

    def _read_labels(self, path: Path) -> list[str]:
        """Raises RunError where they are none, or fewer than the program's scores."""
        if self.predicts not in ("classes", "boxes"):
            return []
        found: Any = self.folder.json(folder.LABELS) if folder.LABELS in self.folder else None
        if not isinstance(found, list) or not all(isinstance(each, str) for each in cast("list[Any]", found)):
            raise RunError(f"{path}: {folder.LABELS} is no list of names, and the model predicts {self.predicts}; export the run again")
        outputs = {str(output["name"]): output["shape"] for output in self.told["outputs"]}
        scores = outputs["scores" if self.predicts == "boxes" and "scores" in outputs else next(iter(outputs))]
        labels: list[str] = found
        if not scores or scores[-1] != len(labels):
            raise RunError(f"{path}: {folder.LABELS} has {len(labels)} names, and the program scores {scores[-1:]}; export the run again")
        return labels

    def _opened_tokenizer(self) -> Any:
        if self.preprocessing["tokenizer"] == "bytes":
            return (lambda text: list(text.encode())), (lambda ids: written(ids, ()))
        try:
            from tokenizers import Tokenizer  # pyright: ignore[reportMissingImports]  # an extra
        except ImportError as error:
            raise RunError("tokenizers, which reads this model's texts, is not installed; pip install tokenizers") from error
        try:
            library: Any = Tokenizer.from_str(self.folder.read(folder.TOKENIZER).decode())
        except RunError:
            raise
        except Exception as error:  # the library raises Exception itself
            raise ValueError(f"{folder.TOKENIZER} is none") from error
        return (lambda text: library.encode(text, add_special_tokens=False).ids), (
            lambda ids: library.decode(ids, skip_special_tokens=False)
        )

    def _answers(self, outputs: Any, batch: Sequence[Ready]) -> list[dict[str, Any]]:
        if self.predicts == "classes":
            return self._classes(outputs.float().softmax(-1).cpu())
        if self._finder is not None:
            height, width = (int(side) for side in self.told["inputs"][0]["shape"][-2:])
            return self._boxes(self._finder(outputs, (height, width)), batch, max(height, width))
        found = outputs.float().cpu() if isinstance(outputs, torch.Tensor) else None
        if found is None:
            raise RunError("the program returns several tensors, and the task has not said what they mean")
        return [
            {"prediction": _rounded(each.tolist()), **({} if each.isfinite().all() else {"guards": ["output: it is no finite number"]})}
            for each in found
        ]

    def _classes(self, probabilities: torch.Tensor) -> list[dict[str, Any]]:
        best, places = probabilities.topk(min(self.asked.top, probabilities.shape[1]), dim=1)
        made: list[dict[str, Any]] = []
        for whole, values, labels in zip(probabilities.sum(1).tolist(), best.tolist(), places.tolist(), strict=True):
            names = [self.labels[label] for label in labels]
            guards = self._of_output(whole, names[0], values[0])
            answer: dict[str, Any] = {
                "prediction": UNSURE if guards else names[0],
                "class": names[0],
                "confidence": _rounded(round(values[0], 6)),
            }
            if self.asked.top > 1:
                answer["top"] = [[name, _rounded(round(value, 6))] for name, value in zip(names, values, strict=True)]
            made.append({**answer, "guards": guards})
        return made

    def _of_output(self, whole: float, name: str, confidence: float) -> list[str]:
        if not abs(whole - 1) <= _SUM_OFF:
            return ["output: its probabilities do not sum to 1"]
        if confidence < self.asked.unsure:
            return [f"unsure: {confidence:.3f} is below {self.asked.unsure:g}"]
        if self.asked.classes and name not in self.asked.classes:
            return [f"class: {name} is none of those that were asked for"]
        return []

    def _boxes(self, picked: Any, batch: Sequence[Ready], side: int) -> list[dict[str, Any]]:
        """In pixels of the picture as it came."""
        made: list[dict[str, Any]] = []
        for row, ready in enumerate(batch):
            factor = max(ready.size) / side if max(ready.size) else 1.0
            found: list[dict[str, Any]] = []
            for place in range(int(picked.real[row].sum())):
                score, name = float(picked.scores[row, place]), self.labels[int(picked.classes[row, place])]
                if score >= self.asked.unsure and (not self.asked.classes or name in self.asked.classes):
                    edges = zip(picked.boxes[row, place].tolist(), (*ready.size, *ready.size), strict=True)
                    box = [round(min(factor * edge, most), 2) for edge, most in edges]  # beyond the picture its square is filled
                    found.append({"class": name, "score": round(score, 6), "box": box})
            made.append({"prediction": found})
        return made


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return value if math.isfinite(value) else None
