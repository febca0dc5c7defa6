"""The blind pairwise human study: who judges what, the page they judge on, and what it says.

`design` is what a study is and never changes once made; `plan` shares the pairs out among the annotators;
`creation` writes a study's folder with anonymous copies of the videos (`videos`). `database` and `schema`
keep who judges what and how they judged, `judging` is what the page (`server`) asks of them. `judgements`
reads them back, `collected` brings in those made elsewhere, and `analysis` with `clustered`, `agreement`,
`ranking` and `power` says what they are worth.
"""

from importlib.util import find_spec

from motive.errors import UserError

_PACKAGES = ("sqlalchemy", "alembic", "fastapi", "uvicorn")


def require_packages() -> None:
    """Raises UserError when the packages of a study are not installed."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise UserError(f"motive study needs {missing[0]}: pip install 'motive-attribution[study]'")
