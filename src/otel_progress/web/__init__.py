"""Progress in your own web application: routes for Starlette and FastAPI, and the web component `<progress-operation>`.

Example:
    ```python
    from fastapi import FastAPI
    from otel_progress import web

    api = FastAPI()
    api.mount("/progress", web.app(authorize=lambda connection: connection.session.get("user")))
    ```
"""

from otel_progress.errors import MissingDependency

try:
    import google.protobuf  # noqa: F401
    import starlette  # noqa: F401
except ImportError as error:
    raise MissingDependency(f'otel_progress.web needs: pip install "otel-progress[web]" ({error})') from None

from otel_progress.web.application import app, lifespan, routes

__all__ = ["app", "lifespan", "routes"]
