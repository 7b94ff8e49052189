"""Every snippet of the READMEs, CONTRIBUTING.md and docs/ runs, or is checked as far as possible without running.

A page's blocks run in order, in a separate folder. `python` runs, in one namespace per page. In `sh`, our commands are
parsed, with their configuration, and the files, modules, targets and extras in them must exist. `yaml` is parsed,
checked if it is a configuration of ours, and saved if its first line is the comment `# NAME`. A comment above a block
may say `<!-- needs: PACKAGE -->`, or `<!-- not run: REASON -->`.
"""

import importlib.util
import re
import runpy
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from tmkt.cli import build_parser
from tmkt.config import Config, from_mapping, load_config
from tmkt.models import registry

ROOT = Path(__file__).parents[2]
OUTSIDE_DOCS = [ROOT / "README.md", ROOT / "tmkt" / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES = [*OUTSIDE_DOCS, *sorted((ROOT / "docs").rglob("*.md"))]
MARKDOWN = MarkdownIt("commonmark")
LANGUAGES = {"python", "sh", "yaml", "text"}


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    code: str
    comment: str  # the HTML comment right above, without its delimiters

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def not_run(self) -> str | None:
        return self.comment.partition("not run:")[2].strip() or None


def blocks(page: Path) -> list[Block]:
    found, comment = [], ""
    for token in MARKDOWN.parse(page.read_text()):
        if token.type == "fence":
            name, line = str(page.relative_to(ROOT)), token.map[0] + 2
            found.append(Block(name, line, token.info.strip(), token.content, comment))
        comment = token.content.strip().removeprefix("<!--").removesuffix("-->") if token.type == "html_block" else ""
    return found


ALL = {page: blocks(page) for page in PAGES}


def run(block: Block, namespace: dict[str, object]) -> None:
    code = compile("\n" * (block.line - 1) + block.code, block.page, "exec")  # a traceback shows the page's own line
    exec(code, namespace)


def check_yaml(block: Block) -> None:
    values = yaml.safe_load(block.code)
    if set(values) <= set(Config.model_fields):
        from_mapping(values)
    if name := re.match(r"# ([\w.-]+)\n", block.code):
        Path(name[1]).write_text(block.code)


def commands(code: str) -> list[list[str]]:
    """Return the words of each command, without comments and without variables set before it."""
    found = []
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.match(r"\w+=", words[0]):
            words.pop(0)
        if words:
            found.append(words)
    return found


def check_command(words: list[str], place: str) -> None:
    if module_of(words) == "tmkt" or words[0] == "tmkt" or words[:2] == ["srun", "tmkt"]:
        check_tmkt(words[words.index("tmkt") + 1 :], place)
    missing = [*missing_modules(words), *missing_targets(words), *missing_extras(words), *missing_files(words)]
    assert not missing, f"{place}: no {', no '.join(missing)}"


def module_of(words: list[str]) -> str | None:
    return words[words.index("-m") + 1] if "-m" in words else None


def missing_modules(words: list[str]) -> list[str]:
    module = module_of(words)
    return [f"module {module}"] if module and not importlib.util.find_spec(module) else []


def missing_targets(words: list[str]) -> list[str]:
    """Targets of the Makefile."""
    named = [word for word in words[1:] if "=" not in word] if words[0] == "make" else []
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return [f"target {name}" for name in named if name not in targets]


def missing_extras(words: list[str]) -> list[str]:
    named = re.findall(r"(?:tmkt|\.)\[([\w,]+)\]", " ".join(words)) if words[0] == "pip" else []
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return [f"extra {name}" for names in named for name in names.split(",") if name not in extras]


def missing_files(words: list[str]) -> list[str]:
    """Among words that begin with a folder of the tree."""
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"runs", "build", "dist"}
    named = [word for word in words if "/" in word and word.partition("/")[0] in folders]
    return [f"file {word}" for word in named if not (ROOT / word).exists()]


def check_tmkt(arguments: list[str], place: str) -> None:
    try:
        parsed = build_parser().parse_args(arguments)
    except SystemExit as stop:
        if stop.code != 0:
            pytest.fail(f"{place}: tmkt does not take {shlex.join(arguments)}")
        return  # --help
    if parsed.command == "train":
        near, ours = Path(parsed.config), ROOT / parsed.config
        known = [setting for setting in parsed.override if "$" not in setting]
        load_config(near if near.exists() else ours, known)


def anchors(page: Path) -> set[str]:
    """Return the anchors of the page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", OUTSIDE_DOCS, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    """`mkdocs build --strict` checks the links of docs/."""
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()) if not link.startswith("http")]
    assert links
    for link in links:
        target, _, anchor = link.partition("#")
        assert (page.parent / target).exists(), link
        assert not anchor or anchor in anchors(page.parent / target), link


@pytest.mark.parametrize("page", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in PAGES if ALL[p]])
def test_snippets(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "BACKBONES", dict(registry.BACKBONES))  # a page's registrations end with it
    namespace: dict[str, object] = {"__name__": page.stem}
    for block in ALL[page]:
        assert block.language in LANGUAGES, f"{block.place}: expected a language of {LANGUAGES}, got {block.language!r}"
        needs = block.comment.partition("needs:")[2].strip()
        if block.not_run:
            continue
        if needs and not importlib.util.find_spec(needs):
            pytest.skip(f"{block.place}: {needs} is not installed; this block and those after it did not run")
        if block.language == "python":
            run(block, namespace)
        elif block.language == "yaml":
            check_yaml(block)
        elif block.language == "sh":
            for words in commands(block.code):
                check_command(words, block.place)


def test_no_snippet_escapes():
    """Each fence in a page was found, and few are left out, each with its reason."""
    for page, found in ALL.items():
        assert len(re.findall(r"^ *```\w+", page.read_text(), re.MULTILINE)) == len(found), page
    everything = [block for found in ALL.values() for block in found]
    left_out = [f"{block.place}: {block.not_run}" for block in everything if block.not_run]
    assert len(left_out) <= len(everything) // 10, left_out


@pytest.mark.parametrize(
    "command",
    [
        "tmkt trian configs/nmnist.yaml",
        "tmkt train configs/nmnist.yaml train.stpes=3",
        "tmkt eval",
        "python -m tmkt_kernel",
        "make dmo",
        "pip install tmkt[trian]",
        "bash tests/whel.sh",
    ],
)
def test_a_wrong_command_is_found(command):
    from tmkt.errors import UserError

    with pytest.raises((AssertionError, UserError, pytest.fail.Exception)):
        check_command(shlex.split(command), "here")


@pytest.mark.slow
def test_pictures_are_drawn(tmp_path):
    """docs/pictures.py draws the pictures of docs/images."""
    pictures = runpy.run_path(str(ROOT / "docs" / "pictures.py"))
    pictures["main"](tmp_path)
    for picture in pictures["PICTURES"]:
        name = f"{picture.__name__}.png"
        assert (tmp_path / name).stat().st_size > 10_000
        assert (ROOT / "docs" / "images" / name).exists()
