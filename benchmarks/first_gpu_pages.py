"""What a first contact with a GPU found, as Markdown: tables for the pages of the site, and where they go."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = {"gpu.md": "benchmarks/gpu.md", "tested-on.md": "tested-on.md"}
"""By the name beside the results, the page of the site."""
BEGIN, END = "<!-- first_gpu: begin -->", "<!-- first_gpu: end -->"
TOY = "**A rehearsal on a CPU, at toy size: no number here says anything about a GPU.**"
NONE = "Not yet measured."


def pages(results: Mapping[str, Any]) -> dict[str, str]:
    """The text of each page, by its name beside the results."""
    toy = [TOY] if results["mode"] != "gpu" else []
    return {
        name: "\n\n".join([*toy, make(results)]) + "\n"
        for name, make in (("gpu.md", tables), ("tested-on.md", tested_on))
    }


def write_docs(results: Mapping[str, Any], docs: Path) -> None:
    """Put the tables between the markers of the site's pages.

    Args:
        results: of a GPU.
        docs: the folder of the site's pages.

    Raises:
        ValueError: results of a rehearsal, or a page without markers.
    """
    if results["mode"] != "gpu" or not results["machine"].get("name"):
        raise ValueError("a rehearsal's numbers do not go into the documentation")
    for name, text in pages(results).items():
        page = docs / PAGES[name]
        before = page.read_text(encoding="utf-8")
        block = f"{BEGIN}\n\n{text.strip()}\n\n{END}"
        if (before.count(BEGIN), before.count(END)) != (1, 1) or before.index(BEGIN) > before.index(END):
            raise ValueError(f"{page}: expected the markers {BEGIN} and {END}, once each")
        start, end = before.index(BEGIN), before.index(END) + len(END)
        page.write_text(before[:start] + block + before[end:], encoding="utf-8")


def where(results: Mapping[str, Any]) -> str:
    """The machine on one line."""
    machine = results["machine"]
    if not machine.get("name"):
        return f"A CPU, {machine.get('cpus')} cores, torch {machine.get('torch')}"
    driver = f", driver {machine['driver']}" if machine.get("driver") else ""
    return f"{machine['name']} ({machine['gib']:.0f} GiB), torch {machine['torch']}, CUDA {machine['cuda']}{driver}"


def tables(results: Mapping[str, Any]) -> str:
    """A table of the aims, and for each part one of its numbers."""
    parts = finished(results)
    if not parts:
        return NONE
    lines = [f"{where(results)}.", "", "| what | aim | found | met |", "| --- | --- | --- | --- |"]
    for part in parts.values():
        if not part["aims"] or part["state"] == "not run":
            lines.append(row(part["title"], "", said(part), ""))
        for number, aim in enumerate(part["aims"] if part["state"] != "not run" else ()):
            met = {True: "yes", False: "no", None: "not measured"}[aim["met"]]
            found = "; ".join(shown(value) for value in aim["found"].values())
            lines.append(row(part["title"] if not number else "", aim["aim"], found, met))
    for part in parts.values():
        lines += ["", f"## {part['title']}", "", f"{said(part)}; {part['date']}."]
        if part["findings"]:
            lines += ["", "| | |", "| --- | ---: |"]
            lines += [row(each["name"], f"{shown(each['value'])} {each['unit']}".strip()) for each in part["findings"]]
    return "\n".join(lines)


def tested_on(results: Mapping[str, Any]) -> str:
    """A table of what was tried, and whether it went well."""
    parts = finished(results)
    if not parts:
        return NONE
    lines = [f"{where(results)}.", "", "| what | | date |", "| --- | --- | --- |"]
    lines += [row(part["title"], said(part), part["date"]) for part in parts.values()]
    return "\n".join(lines)


def finished(results: Mapping[str, Any]) -> dict[str, Any]:
    """The parts that are not at work."""
    return {name: part for name, part in results["parts"].items() if part["state"] != "running"}


def said(part: Mapping[str, Any]) -> str:
    """What became of a part."""
    if part["state"] == "done":
        missed, count = sum(aim["met"] is not True for aim in part["aims"]), len(part["aims"])
        return f"ran, {part['seconds']:.0f} s{f', {missed} of {count} aims not reached' if missed else ''}"
    return f"{part['state']}: {part['reason']}"


def shown(value: float | str) -> str:
    """A number with three digits that count, or words."""
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def row(*cells: str) -> str:
    """Of a table; a bar within a cell would end it."""
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
