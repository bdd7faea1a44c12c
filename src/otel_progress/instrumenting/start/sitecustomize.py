"""Run by Python at its start below `otel-progress run`: one finder, and nothing imported until a known library is.

It must not fail or print in any Python, however old, nor where otel-progress is not installed.
"""

import os
import sys


def _watch(here: str, asked: list) -> None:  # type: ignore[type-arg]
    """Have the integrations that are asked for started after the import of the first library that one is for."""
    from importlib.util import module_from_spec, spec_from_file_location

    name = "otel_progress.instrumenting.imports"
    spec = spec_from_file_location(name, os.path.join(os.path.dirname(here), "imports.py"))
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = imports = module_from_spec(spec)
    spec.loader.exec_module(imports)

    def wake() -> None:
        imports.watch.off(wake)
        try:
            import otel_progress  # noqa: F401  starts the integrations that the environment names
        except Exception:  # not installed in this Python
            pass

    if any(one not in ("auto", "none") and one not in imports.BUILT_IN for one in asked):
        wake()  # another package's, or a typo that is told
        return
    for integration, modules in imports.BUILT_IN.items():
        if integration not in imports.PASSIVE and ("auto" in asked or integration in asked):
            for module in modules:
                imports.watch.on(module, wake)


def _start() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [each for each in sys.path if os.path.abspath(each) != here]
    asked = [each.strip() for each in os.environ.get("OTEL_PROGRESS_INSTRUMENT", "").lower().split(",") if each.strip()]
    try:
        if sys.version_info >= (3, 10) and asked and asked != ["none"]:
            _watch(here, asked)
    except Exception:
        pass
    ours = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401  the one that this stands before
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
    finally:
        if ours is not None:
            sys.modules.setdefault("sitecustomize", ours)


_start()
