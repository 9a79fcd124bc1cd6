"""Plotly's figure widget with one copy of plotly.js a page, where plotly's own carries 5 MB in each."""

from __future__ import annotations

import functools
from pathlib import Path

import anywidget
import plotly
import plotly.graph_objects as go
import traitlets
from ipywidgets import widget_serialization

# A figure asks the widget manager for the widget that holds the script, so it works wherever that one can be had: on a
# page with other figures, in an output of its own (Colab), in a notebook that was saved and opened again.
FIGURE = """
const modules = (globalThis.tedlensPlotly ??= {});
async function load(model) {
  const script = await model.widget_manager.get_model(model.get("_script").slice("IPY_MODEL_".length));
  const version = script.get("version");
  modules[version] ??= import(URL.createObjectURL(new Blob([script.get("source")], { type: "text/javascript" })));
  return (await modules[version]).default();
}
export default () => {
  let figure;
  return {
    async initialize(context) { figure = await load(context.model); await figure.initialize(context); },
    render: (context) => figure.render(context),
  };
};
"""


class Script(anywidget.AnyWidget):
    """The script that plotly's figure widgets run in the browser; never shown itself."""

    _esm = "export default {}"
    source = traitlets.Unicode().tag(sync=True)
    version = traitlets.Unicode().tag(sync=True)


class Figure(go.FigureWidget):  # type: ignore[misc]
    """A `go.FigureWidget` in all but where its script comes from."""

    _esm = FIGURE
    _script = traitlets.Instance(Script).tag(sync=True, **widget_serialization)

    @traitlets.default("_script")
    def _default_script(self) -> Script:
        return script()


def script() -> Script:
    """The one script of this kernel."""
    made = _made()
    if made.comm is None:  # somebody closed all widgets
        _made.cache_clear()
        made = _made()
    return made


@functools.cache
def _made() -> Script:
    source = Path(plotly.__file__).parent / "package_data" / "widgetbundle.js"
    return Script(source=source.read_text(encoding="utf-8"), version=plotly.__version__)
