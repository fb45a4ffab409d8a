"""Links work, every page is in the navigation, and JSON samples are JSON."""

import json
import re

import pytest

from tests.docs.pages import PAGES, ROOT, fences, pages_with, prose, text_of

LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)")  # to this repository, not to the web
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def anchors(page: str) -> set[str]:
    """Return the anchors of a page's headings."""
    titles = HEADING.findall(prose(page))
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page: str) -> None:
    for name, fragment in LINK.findall(prose(page)):
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), f"{page} links to {name}, which does not exist"
        if fragment:
            assert fragment in anchors(target.resolve().relative_to(ROOT).as_posix()), (
                f"no such heading: {page}, #{fragment}"
            )


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/")])
def test_a_page_is_in_the_navigation_and_in_the_index(page: str) -> None:
    name = page.removeprefix("docs/")
    assert re.search(rf": {name}$", text_of("mkdocs.yml"), re.MULTILINE)
    assert name == "index.md" or f"]({name})" in text_of("docs/index.md")


@pytest.mark.parametrize("page", pages_with("json"))
def test_json_samples_are_json(page: str) -> None:
    for fence in fences(page, "json"):
        rest = fence.code.strip()
        while rest:  # one value or several
            _, end = json.JSONDecoder().raw_decode(rest)
            rest = rest[end:].lstrip()
