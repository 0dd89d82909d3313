"""The names that users write: `medseg.*` and the tree of errors."""

from __future__ import annotations

import ast
import inspect
import multiprocessing
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

import medseg
from medseg import errors

ALL_ERRORS = [value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, Exception)]
EXIT_CODES = {
    "MedsegError": 1,
    "InputError": 65,
    "ModelError": 66,
    "ConfigError": 64,
    "DataError": 65,
    "OutputError": 74,
    "ResourceError": 71,
    "WorkerError": 70,
    "Cancelled": 130,
}


def declared_names() -> set[str]:
    """The names that type checkers see."""
    tree = ast.parse(inspect.getsource(medseg))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {alias.asname or alias.name for line in block.body for alias in line.names}  # type: ignore[attr-defined]


def test_all_is_what_type_checkers_see() -> None:
    assert set(medseg.__all__) == declared_names() | {"__version__", "errors"}
    assert dir(medseg) == sorted(medseg.__all__)


@pytest.mark.parametrize("name", medseg.__all__)
def test_every_name_can_be_had(name: str) -> None:
    value = getattr(medseg, name)
    assert getattr(value, "__name__", name).split(".")[-1] == name or name == "__version__"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'segmnet'"):
        _ = medseg.segmnet


def test_import_is_quick_and_brings_no_torch() -> None:
    script = (
        "import sys, time; began = time.perf_counter(); import medseg; "
        "print(time.perf_counter() - began, *{'torch', 'monai', 'numpy', 'nibabel'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    seconds, *heavy = done.stdout.split()
    assert not heavy
    assert float(seconds) < 1


def drawn_tree() -> dict[str, str]:
    """{class: parent} as the module's docstring draws it."""
    lines = [
        match for line in inspect.getdoc(errors).splitlines() if (match := re.match(r"([\s│├└─]*)(\w+) +\S", line))
    ]
    lines = [match for match in lines if match[2] in vars(errors)]
    parents: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for match in lines:
        path = [(depth, name) for depth, name in path if depth < len(match[1])]
        parents[match[2]] = path[-1][1] if path else "Exception"
        path.append((len(match[1]), match[2]))
    return parents


def test_the_docstring_draws_the_tree() -> None:
    assert drawn_tree() == {cls.__name__: cls.__bases__[0].__name__ for cls in ALL_ERRORS}


def example(cls: type[errors.MedsegError]) -> errors.MedsegError:
    if cls is errors.Cancelled:
        return errors.Cancelled()
    if cls is errors.SeriesChoiceError:
        return errors.SeriesChoiceError("study/ct", ["1: thorax, 80 slices", "2: neck, 60 slices"])
    if issubclass(cls, errors.InputError | errors.ModelImportError):
        return cls(Path("study/scan.nii.gz"), "ends after 12 bytes.")
    return cls("It went wrong.", advice="Do it again.")


def throw(error: Exception) -> None:
    raise error


@pytest.fixture(scope="module")
def other_process() -> object:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize("cls", ALL_ERRORS, ids=lambda cls: cls.__name__)
def test_errors_cross_to_another_process_and_back(cls: type[errors.MedsegError], other_process: object) -> None:
    sent = example(cls)
    with pytest.raises(cls) as caught:
        other_process.submit(throw, sent).result(60)  # type: ignore[attr-defined]
    came = caught.value
    assert type(came) is cls
    assert (came.message, came.advice, str(came), came.exit_code) == (
        sent.message,
        sent.advice,
        str(sent),
        sent.exit_code,
    )
    for name in ("path", "reason", "series"):
        assert getattr(came, name, None) == getattr(sent, name, None)


@pytest.mark.parametrize("cls", ALL_ERRORS, ids=lambda cls: cls.__name__)
def test_exit_codes_belong_to_branches(cls: type[errors.MedsegError]) -> None:
    branch = next(parent.__name__ for parent in cls.__mro__ if parent.__name__ in EXIT_CODES)
    assert cls.exit_code == EXIT_CODES[branch]


def test_input_errors_name_the_file_the_reason_and_the_way_out() -> None:
    error = errors.TruncatedFileError("/data/of/someone/scan.nii", "ends after 12 bytes.")
    assert str(error) == "scan.nii: ends after 12 bytes. The copy is incomplete: transfer or export the scan again."
    assert error.path == Path("/data/of/someone/scan.nii")
    assert error.reason == "ends after 12 bytes."


def test_every_input_error_has_advice() -> None:
    silent = [cls.__name__ for cls in ALL_ERRORS if issubclass(cls, errors.InputError) and not example(cls).advice]
    assert silent == ["InputError"]


def test_advice_can_be_given_and_taken_away() -> None:
    assert str(errors.NotCTError("a.nii", "is an MR.", advice="Take a CT.")) == "a.nii: is an MR. Take a CT."
    assert str(errors.NotCTError("a.nii", "is an MR.", advice="")) == "a.nii: is an MR."


def test_a_choice_of_series_lists_them() -> None:
    error = example(errors.SeriesChoiceError)
    assert error.series == ("1: thorax, 80 slices", "2: neck, 60 slices")
    assert str(error).startswith("ct: holds 2 CT series: 1: thorax, 80 slices; 2: neck")
    assert "--series" in str(error)


def test_cancelled_says_so() -> None:
    assert str(errors.Cancelled()) == "Cancelled."
