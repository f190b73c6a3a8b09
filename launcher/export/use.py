"""Lines that use an export and need none of the project's code, for its card: from a file to an answer, by torch and by onnxruntime. They
do what launcher/predict/ does, which checks far more: tests/export/test_card.py runs them beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from launcher.exported.folder import LABELS, ONNX, PREPROCESSING, PROGRAM, TOKENIZER

_SAID = f'told = json.load(open("{PREPROCESSING}"))'
_FITS: Mapping[str, Sequence[str]] = {
    "stretch": ('picture = picture.convert(told["mode"]).resize((width, height), Image.Resampling.BILINEAR)',),
    "middle": (
        'side = min(picture.size) * told.get("share", 1.0)',
        "left, top = ((each - side) / 2 for each in picture.size)",
        "part = (left, top, left + side, top + side)",
        "picture = picture.resize((width, height), Image.Resampling.BILINEAR, box=part, reducing_gap=2.0)",
    ),
    "upper_left": (
        "factor = width / max(picture.size)",
        "small = picture.resize([max(1, round(factor * side)) for side in picture.size], Image.Resampling.BILINEAR)",
        'picture = Image.new("RGB", (width, height), tuple(told.get("fill", (0, 0, 0))))',
        "picture.paste(small)",
    ),
}


def lines(told: Mapping[str, Any], preprocessing: Mapping[str, Any], form: str) -> list[str]:
    """Of Python, to be run in the folder; none where nobody can say in a few what the inputs are. `form`: program or onnx."""
    if preprocessing["kind"] == "text":
        return _text(told, preprocessing, form)
    made = _given(told, preprocessing)
    outputs = _by_torch(told) if form == "program" else _by_onnx(told)
    return _with_imports([*made, "", *outputs, *_shown(told)])


def _with_imports(made: Sequence[str]) -> list[str]:
    """Of what they name."""
    whole = "\n".join(made)
    standard = [f"import {name}" for name in ("csv", "json") if f"{name}." in whole]
    others = [f"import {name}" for name in ("onnxruntime", "torch") if f"{name}." in whole]
    more = [f"from {package} import {name}" for package, name in (("PIL", "Image"), ("tokenizers", "Tokenizer")) if f"{name}." in whole]
    return [*standard, *([""] if standard else []), "import numpy as np", *others, *more, "", *made]


# ---------------------------------------------------------------- what goes in


def _given(told: Mapping[str, Any], preprocessing: Mapping[str, Any]) -> list[str]:
    """To `inputs`, a list."""
    if preprocessing["kind"] == "image":
        return _picture(preprocessing)
    if preprocessing["kind"] == "table":
        return _row()
    if preprocessing["kind"] == "array":
        return _array(preprocessing)
    kinds = [(each["name"], each["dtype"], each["shape"][1:]) for each in told["inputs"]]
    loads = [f'np.load("{name}.npy").astype("{dtype}"),  # samples, each of shape {shape}' for name, dtype, shape in kinds]
    return ["inputs = [", *(f"    {each}" for each in loads), "]"]


def _picture(preprocessing: Mapping[str, Any]) -> list[str]:
    return [
        _SAID,
        'height, width = told["size"]',
        'picture = Image.open("picture.png").convert("RGB")  # yours',
        *_FITS[preprocessing["fit"]],
        'mean, std = (np.array(told[name], np.float32) for name in ("mean", "std"))',
        "pixels = np.asarray(picture, np.float32).reshape(height, width, -1) / np.float32(255)",
        "inputs = [np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1)[None])]",
    ]


def _row() -> list[str]:
    return [
        "def number(text, told):",
        "    if not text:",
        '        return told["fill"]  # none: what is missing is refused',
        '    return float(text) if told["equals"] is None else float(text == told["equals"])',
        "",
        "",
        _SAID,
        'row = next(csv.DictReader(open("rows.csv", newline="")))  # yours',
        'values = [(number(row[each["column"]], each) - each["mean"]) / each["std"] for each in told["columns"]]',
        "inputs = [np.array([values], np.float32)]",
    ]


def _array(preprocessing: Mapping[str, Any]) -> list[str]:
    along = f".reshape(-1{', 1' * (len(preprocessing['shape']) - 1)})"
    made = [_SAID, f'rows = np.load("rows.npy").astype(np.float32)  # yours: samples, each of shape {preprocessing["shape"]}']
    if preprocessing["fill"] is not None:
        made.append(f'rows = np.where(np.isnan(rows), np.array(told["fill"], np.float32){along}, rows)')
    if preprocessing["mean"] is not None:
        made.append(f'mean, std = (np.array(told[name], np.float32){along} for name in ("mean", "std"))')
        made.append("rows = (rows - mean) / std")
    return [*made, "inputs = [rows]"]


# ---------------------------------------------------------------- what comes out


def _is_one(told: Mapping[str, Any]) -> bool:
    return [each["name"] for each in told["outputs"]] == ["output"]


def _by_torch(told: Mapping[str, Any]) -> list[str]:
    call = "program(*(torch.from_numpy(each) for each in inputs))"
    load = f'program = torch.export.load("{PROGRAM}").module()'
    if _is_one(told):
        return [load, f"output = {call}.detach().numpy()"]
    return [
        load,
        f"found = {call}",
        "outputs = [each.detach().numpy() for each in (found.values() if isinstance(found, dict) else found)]",
    ]


def _by_onnx(told: Mapping[str, Any]) -> list[str]:
    load = f'session = onnxruntime.InferenceSession("{ONNX}", providers=["CPUExecutionProvider"])'
    call = "session.run(None, dict(zip((each.name for each in session.get_inputs()), inputs)))"
    return [load, f"output = {call}[0]" if _is_one(told) else f"outputs = {call}"]


def _shown(told: Mapping[str, Any]) -> list[str]:
    if not _is_one(told):
        names = ", ".join(repr(each["name"]) for each in told["outputs"])
        return [f"for name, each in zip(({names}), outputs):", "    print(name, each.shape)"]
    if told["predicts"] != "classes":
        return ["print(output[0])"]
    return [
        f'labels = json.load(open("{LABELS}"))',
        "scores = np.exp(output[0] - output[0].max())",
        "scores /= scores.sum()",
        "for place in scores.argsort()[::-1][:3]:",
        '    print(labels[place], f"{scores[place]:.4f}")',
    ]


# ---------------------------------------------------------------- a text


def _text(told: Mapping[str, Any], preprocessing: Mapping[str, Any], form: str) -> list[str]:
    if len(told["inputs"]) != 1 or not _is_one(told):
        return []
    is_bytes = preprocessing["tokenizer"] == "bytes"
    begin = "list(text.encode())" if is_bytes else "tokenizer.encode(text, add_special_tokens=False).ids"
    end = 'bytes(each if each < 256 else 63 for each in tokens).decode(errors="replace")'
    end = end if is_bytes else "tokenizer.decode(tokens, skip_special_tokens=False)"
    run = _by_torch(told) if form == "program" else _by_onnx(told)
    made = [
        _SAID,
        *([] if is_bytes else [f'tokenizer = Tokenizer.from_file("{TOKENIZER}")']),
        run[0],
        'text, count = "To be", 20  # yours',
        f"tokens = {begin}",
        "for _ in range(count):",
        '    window = tokens[-told["length"] :]',
        '    inputs = [np.array([window + [0] * (told["length"] - len(window))])]',
        f"    {run[1]}",
        "    tokens.append(int(output[0, len(window) - 1].argmax()))  # the likeliest; launcher predict draws",
        f"print({end})",
    ]
    return _with_imports(made)
