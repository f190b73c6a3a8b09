"""What somebody who means harm types: kinds that were written down, and what a seed makes of them."""

from __future__ import annotations

import random

TOUCH, MODULE, SECRET = "@TOUCH@", "fuzz_canary", "FUZZ_TOKEN"
"""The path of a file that nothing may make, which a sandbox puts in; a module that nothing may import; a variable whose value is kept."""

KINDS: dict[str, tuple[str, ...]] = {
    "plain": (
        "", " ", "a", "a b", "é", "日本語", "\u200c", "-", "--", ".", "..", "/", "0", "-1", "1e5", "1_000", "0x10", "٣", "NaN", "inf",
    ),
    "words of yaml": (
        "null", "~", "true", "no", "on", "off", "[]", "{}", "- a", "a: b", "? a", "|", ">", "&a", "*a", "# a", "2024-11-21",
    ),
    "tags of yaml": (
        "!!python/object/apply:os.system [touch @TOUCH@]", "!!python/name:os.system", "!include /etc/passwd", "&a [*a]", "<<: *a",
    ),
    "expansions": (
        "$(touch @TOUCH@)", "`touch @TOUCH@`", "${x:=$(touch @TOUCH@)}", "$((a[$(touch @TOUCH@)]))", "a[$(touch @TOUCH@)]", "$HOME",
        "${!x}", "x[$(touch @TOUCH@)]=1", "PATH[$(touch @TOUCH@0>&2)]", "<(touch @TOUCH@)", "{a,b}", "$'\\x24(touch @TOUCH@)'", "!!",
        "*", "~root", "~",
    ),
    "ends of quotes": (
        "'; touch @TOUCH@; '", '"; touch @TOUCH@; "', "'\"'\"$(touch @TOUCH@)'\"'\"'", "\\'; touch @TOUCH@; #", "a\\", "'", '"', "\\",
        '"$(touch @TOUCH@)"',
    ),
    "commands": (
        "; touch @TOUCH@", "&& touch @TOUCH@", "| touch @TOUCH@", "& touch @TOUCH@ &", ">@TOUCH@", "</dev/tcp/127.0.0.1/1",
        "() { :;}; touch @TOUCH@",
    ),
    "line breaks": (
        "a\ntouch @TOUCH@", "a\r\ntouch @TOUCH@", "a\n#SBATCH --wrap='touch @TOUCH@'", "\n", "a\x0btouch @TOUCH@",
        "a\u2028touch @TOUCH@", "a\x85b", "\n---\n!!python/name:os.system", "EOF\ntouch @TOUCH@\n", "a\\\ntouch @TOUCH@",
    ),
    "controls": (
        "\0", "a\0b", "\x01", "\x7f", "\t", "\x1b]0;owned\x07", "\x1b[2J\x1b[1;31mok", "\x1b]52;c;dG91Y2g=\x07", "\x9b31m", "a\rb",
        "\b\b\b", "\x1bP+q\x1b\\",
    ),
    "unicode": (
        "\u202egnp.exe", "a\u200bb", "\ufeffa", "\u2066x\u2069", "\U000e0041", "\ud800", "a\udcffb", "\udcff", "\ufffe", "e\u0301" * 30,
        "ﬀ", "\U0001f600", "；touch", "＄(touch @TOUCH@)", "\u0000\u202e", "\xa0", "ı", "İ" * 40,
    ),
    "options": (
        "--foo", "-x", "--help", "-h", "--cfg", "--multirun", "-m", "--config-dir=/", "--wrap=touch @TOUCH@", "--uid=0",
        "--export=ALL,A=B", "--rdzv-backend=c10d",
    ),
    "slurm": (
        "%x", "%j/%A", "%%", "\\%x", "node[0-999999999]", "a,b", "a:b", "#SBATCH --uid=0", "!!SLURM", "4:00:00;touch @TOUCH@",
        "1-99:99:99", "@0", "gpu:h100:8",
    ),
    "references": (
        "${oc.env:FUZZ_TOKEN}", "x${oc.env:FUZZ_TOKEN}y", "${oc.env:FUZZ_NOT_SET}", "${oc.env:${oc.env:FUZZ_TOKEN}}",
        "${oc.decode:${oc.env:FUZZ_TOKEN}}", "\\${oc.env:FUZZ_TOKEN}", "${name}", "${.x}", "${..name}", "${nope}", "${", "${}",
        "${a${b}}", "${oc.create:{_target_: os.system}}", "${cluster}", "${now:%f}", "${hydra:runtime.cwd}",
        "${oc.select:x,$(touch @TOUCH@)}", "${eval:__import__('os').system('touch @TOUCH@')}", "${oc.dict.values:cluster}",
        "${oc.deprecated:seed}", "${python_version:major}", "$" + "{name}" * 40, "${oc.env:FUZZ_TOKEN,x}", "${oc.env:'FUZZ_TOKEN'}",
        "${oc.env:\"FUZZ_TOKEN\"}",
    ),
    "grammar of hydra": (
        "a,b", "a=b", "[1,2]", "{a:1}", "{_target_:os.system,_args_:['touch @TOUCH@']}", "choice(a,b)", "range(1,1000000000)",
        "glob(*)", "'a", "a'", "int(x)", "str([1,2])", "sort(c,b,a)", "shuffle(a)", "tag(x,choice(1))", "extend_list(a)",
        "json_str({a:1})", "???", "a@b", "exp@_global_=x", "~seed", "+x=1",
    ),
    "targets": (
        "os.system", "builtins.eval", "fuzz_canary.Thing", "fuzz_canary", "structured://fuzz_canary", "pkg://fuzz_canary",
        "launcher.clusters.local.Local", "launcher.clusters.slurm.Path", "launcher.train.optim.torch.hub.load",
        "torch.optim.lr_scheduler.LRScheduler", "torch.optim.Optimizer", "a..b", "models.resnet.nn.Module",
        "models.resnet.__builtins__", "launcher.clusters.slurm.Slurm.__init__", "data.cifar10.os.system", "hydra.utils.call",
    ),
    "formats": (
        "%s%n%s", "{0.__class__}", "{}", "{run}", "{0:>999999999}", "%(name)s", "{x!r}", "{{", "}", "%d",
        "__import__('os').system('touch @TOUCH@')", "lambda: 0",
    ),
    "paths": (
        "../../x", "../" * 12 + "x", "/../x", "a/../../b", "./x", "//x", "~nobody/x", "~no-such-user/x", "/dev/null", "/dev/stdin",
        "/dev/zero", "/dev/tty", "/proc/self/environ", "/proc/self/mem", "/proc/self/fd/1", "/etc/passwd", "/nonexistent/x", "a/" * 60,
        "x" * 255, "x" * 256, ".lock", ".sweeps", "a//b", "attempts/000", "plan.json", "\\\\host\\share", "C:\\x", "con",
        "file:///etc/passwd", "http://127.0.0.1:1/x", "https://u:p@h/", "s3://b/k", "hf://d",
    ),
    "long": (
        "a" * 3_000, "a" * 5_000, "9" * 90, "9" * 101, "9" * 3_000, "(" * 100, "[" * 2_000, "${" * 100, "'" * 501, "\\" * 3_001,
        "a." * 900, "a," * 900, "{a:" * 50, "$(touch @TOUCH@) " * 100, "é" * 2_000, "-" * 1_000, "=" * 500, "%" * 999, "\u202e" * 800,
        "0" * 4_000, " " * 3_000, ":" * 2_000, "1:" * 60, "a-" * 2_000,
    ),
    "sql and html": (
        "' or 1=1 --", "<script>x</script>", "&lt;", "javascript:0", "]]>", "<!ENTITY x SYSTEM 'file:///etc/passwd'>", "{{7*7}}",
        "{% x %}", "\\u0000",
    ),
}  # fmt: skip


def written() -> list[str]:
    """Every text of every kind, each once."""
    return list(dict.fromkeys(text for texts in KINDS.values() for text in texts))


def texts(seed: int, count: int) -> list[str]:
    """`count` different ones: those that were written, in the order of the seed and so that each kind comes early, then mutations."""
    chance = random.Random(seed)
    piles = [chance.sample(kind, len(kind)) for kind in KINDS.values()]
    chance.shuffle(piles)
    found = dict.fromkeys(pile[depth] for depth in range(max(map(len, piles))) for pile in piles if depth < len(pile))
    mutated = max(count // 6, count - len(found))
    chosen = dict.fromkeys([*found][: count - mutated])
    while len(chosen) < count:
        chosen[mutation(chance, [*found])] = None
    return [*chosen]


def mutation(chance: random.Random, known: list[str]) -> str:
    """Two of the known ones put together, cut, repeated, quoted or with a sign more."""
    one, other = chance.choice(known), chance.choice(known)
    at = chance.randrange(len(one) + 1)
    sign = chance.choice("'\"\\$`\n\0;|&<>(){}[]!#%~*?=,:@ \t\x1b\u202e\ud800é")
    return chance.choice(
        (
            one + other,
            f"{one} {other}",
            one[:at] + other + one[at:],
            one[:at] + sign + one[at:],
            one[:at],
            f"'{one}'",
            f'"{one}"',
            f"${{{one}}}",
            f"$({one})",
            f"{sign}{one}{sign}",
            one.replace("a", sign),
            one[::-1],
            (one + sign) * 7,
        )
    )[:6_000]
