"""Hooks of mkdocs: the README is the site's first page; what pages link to outside docs/ is named only."""

import re
from pathlib import Path
from posixpath import join, normpath

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?:)([^)#\s]*)((?:#[^)\s]*)?)\)")


def for_site(text: str, folder: str) -> str:
    """A page as the site shows it. folder: where its links start from, "" for the README."""

    def link(found: re.Match[str]) -> str:
        label, path, anchor = found.groups()
        target = normpath(join(folder, path)) if path else ""
        if target == "README.md":
            return f"[{label}](index.md{anchor})"
        if not target or target.startswith("docs/"):
            return f"[{label}]({target.removeprefix('docs/')}{anchor})"
        return label if "`" in label else f"{label} (`{target}`)"

    return re.sub(r"(!\[[^\]]*\]\()docs/", r"\1", LINK.sub(link, text))


def on_files(files, config):
    from mkdocs.structure.files import File

    files.append(File.generated(config, "index.md", content=for_site((ROOT / "README.md").read_text(), "")))
    return files


def on_page_markdown(markdown, page, config, files):
    return markdown if page.file.src_uri == "index.md" else for_site(markdown, "docs")
