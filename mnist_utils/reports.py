"""Rendered notebooks: HTML that is one file, asks nothing of the network and keeps every figure's alternative text.

    render(Path("reports/01_seed_model/seed-0/01_seed_model.ipynb"))    # the .html beside it

Nothing is executed here: what the notebook file holds is what the page shows.
"""

from pathlib import Path

from .records import atomic_write

TEMPLATES = Path(__file__).parent / "templates"


def render(notebook: Path) -> Path:
    """Write the executed `notebook` as HTML beside it and return that path. Cells tagged `no-report` are left out."""
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    config = Config({"TagRemovePreprocessor": {"enabled": True, "remove_cell_tags": {"no-report"}}})
    exporter = HTMLExporter(
        config=config, template_name="report", extra_template_basedirs=[str(TEMPLATES)], embed_images=True
    )
    html, _ = exporter.from_filename(str(notebook))
    with atomic_write(notebook.with_suffix(".html")) as part:
        part.write_text(html, encoding="utf-8")
    return notebook.with_suffix(".html")
