"""Writes the functions and modules of the table into functional.py and nn.py, between two marks, and their `__all__`.

python fastpool/_write.py [--check]      --check: tell what differs instead
"""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

from _table import POOLINGS, Pooling  # type: ignore[import-not-found]

FOLDER = Path(__file__).parent
BEGIN, END = "# Written by _write.py from the table:\n", "# End of what is written.\n"

SLIDING = """    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
"""
BINS, EVERYTHING = "    output_size: OutputSize,\n", "    keepdim: bool = True,\n"
SLIDE = "input, sliding({rank}, input, kernel_size, stride, padding, dilation, ceil_mode)"
FORMS = {  # names, the windowing's arguments, the input and its windows
    "sliding": ("{name}_pool{rank}d", SLIDING, SLIDE),
    "adaptive": ("adaptive_{name}_pool{rank}d", BINS, "input, adaptive({rank}, input, output_size)"),
    "global": ("global_{name}_pool", EVERYTHING, "*whole(input, keepdim)"),
}
WINDOWS = {
    "sliding": "{rank}-D windows",
    "adaptive": "each of a given number of {rank}-D bins",
    "global": "every channel",
}
RANKS = {"sliding": (1, 2, 3), "adaptive": (1, 2, 3), "global": (0,)}


def declared(pooling: Pooling, form: str) -> str:
    star = "    *,\n" if pooling.arguments and not (pooling.positional and form != "global") else ""
    given = [f"    {a.name}: {a.annotation}{a.default and f' = {a.default}'},\n" for a in pooling.arguments]
    return star + "".join(given)


def overloads(pooling: Pooling, form: str, name: str) -> str:
    """What type checkers know of `return_indices`, on as few lines as it takes."""
    if not pooling.indices:
        return ""
    parameters = re.findall(
        r"^    (.+),$", f"    input: Tensor,\n{FORMS[form][1]}{declared(pooling, form)}", re.MULTILINE
    )
    shared = [re.sub(" = .*", " = ...", parameter) for parameter in parameters[:-1]]
    results = {"Literal[False] = ...": "Tensor", "Literal[True]": "tuple[Tensor, Tensor]", "bool = ...": "Pooled"}
    text = "# fmt: off\n"
    for annotation, returns in results.items():
        # What has no default cannot follow what has, but by keyword.
        star = ["*"] if annotation == "Literal[True]" and shared[-1].endswith("...") and "*" not in shared else []
        given = [*shared, *star, f"return_indices: {annotation}"]
        line = f"def {name}({', '.join(given)}) -> {returns}: ..."
        if len(line) > 120:
            unbroken = ", ".join(parameter.replace(" ", "\0") for parameter in given)
            filled = textwrap.fill(unbroken, 120, initial_indent="    ", subsequent_indent="    ").replace("\0", " ")
            line = f"def {name}(\n{filled}\n) -> {returns}: ..."
        text += f"@overload\n{line}\n"
    return f"{text}# fmt: on\n"


def function(pooling: Pooling, form: str, rank: int) -> str:
    name, windowing, windows = (part.format(name=pooling.name, rank=rank) for part in FORMS[form])
    first = f'"{pooling.name}", ' if pooling.call in ("", "selected") else ""
    own = "".join(f", {argument.name}" for argument in pooling.arguments)
    call = pooling.call or ("pooled" if pooling.results == 1 else "pooled_twice")
    tensors = ", ".join(["input", *(a.name for a in pooling.arguments if "Tensor" in a.annotation)])
    check = f"has_torch_function_{'variadic' if ',' in tensors else 'unary'}({tensors})"
    return f'''{overloads(pooling, form, name)}@_public
def {name}(
    input: Tensor,
{windowing}{declared(pooling, form)}) -> {pooling.returns}:
    """{pooling.summary.format(WINDOWS[form].format(rank=rank))}"""
    if {check}:
        return overridden({name}, locals())
    return {call}({first}{windows}{own})


'''


def own_base(pooling: Pooling) -> str:
    return "_Learned" if pooling.parameter else "_Own"


def constructor(pooling: Pooling, form: str) -> str:
    """The class whose constructor has the own arguments of a pooling that is computed by `pooled`."""
    _, windowing, _ = FORMS[form]
    names = re.findall(r"    (\w+):", windowing)
    indented = "".join(f"    {line}\n" for line in (windowing + declared(pooling, form)).splitlines())
    learns = "        learnable: bool = {},\n        num_channels: int | None = None,\n" if pooling.parameter else ""
    first = f'"{pooling.name}", ' + ("learnable, num_channels, " if pooling.parameter else "")
    values = ", ".join(f"{argument.name}={argument.name}" for argument in pooling.arguments)
    return f"""    def __init__(
        self,
{indented}{learns.format(pooling.learnable)}    ) -> None:
        super().__init__({", ".join(names)})
        self._store({first}{values})

"""


def module(pooling: Pooling, form: str, rank: int) -> str:
    name, _, _ = (part.format(name=pooling.name, rank=rank) for part in FORMS[form])
    prefix = form.title()
    title = {"sliding": "{}Pool{}d", "adaptive": "Adaptive{}Pool{}d", "global": "Global{}Pool"}[form]
    if pooling.module or (pooling.arguments and form != "global"):
        base = f"_{prefix}{pooling.module or pooling.class_name}"
    else:
        base = f"{own_base(pooling)}, _{prefix}" if pooling.arguments else f"_{prefix}"
    own = constructor(pooling, form) if form == "global" and pooling.arguments and not pooling.module else ""
    head = f"class {title.format(pooling.class_name, rank)}({base}):\n"
    return f"{head}    function = staticmethod(functional.{name})\n\n{own}\n"


def bases(pooling: Pooling) -> str:
    if pooling.module or not pooling.arguments:
        return ""
    name, base = pooling.class_name, own_base(pooling)
    return "".join(
        f"class _{form.title()}{name}({base}, _{form.title()}):\n{constructor(pooling, form)}\n"
        for form in ("sliding", "adaptive")
    )


def renewed(text: str, members: str) -> str:
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    text = f"{before}{BEGIN}\n\n{members.strip()}\n\n\n{END}{after}"
    public = sorted(set(re.findall(r"^(?:def|class) ([A-Za-z]\w*)", text, re.MULTILINE)))
    names = "".join(f'    "{name}",\n' for name in public)
    return re.sub(r"__all__ = \[\n.*?\]\n", f"__all__ = [\n{names}]\n", text, count=1, flags=re.DOTALL)


def formatted(text: str) -> str:
    ruff = [sys.executable, "-m", "ruff", "format", "--config", str(FOLDER.parent / "pyproject.toml"), "-"]
    return subprocess.run(ruff, input=text, capture_output=True, text=True, check=True).stdout


def main() -> int:
    poolings = [pooling for pooling in POOLINGS if not pooling.by_hand]
    each = [(p, form, rank) for p in poolings for form, ranks in RANKS.items() if form in p.forms for rank in ranks]
    written = {
        "functional.py": "".join(function(*which) for which in each),
        "nn.py": "".join(map(bases, poolings)) + "".join(module(*which) for which in each),
    }
    differing = []
    for name, members in written.items():
        text = (FOLDER / name).read_text()
        now = formatted(renewed(text, members))
        if now != text:
            differing.append(name)
            if "--check" not in sys.argv:
                (FOLDER / name).write_text(now)
    if differing and "--check" in sys.argv:
        print(f"{', '.join(differing)} is not what _table.py says; run `make format`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
