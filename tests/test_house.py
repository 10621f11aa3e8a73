"""The rules of the house, read from the imports: see docs/architecture.md."""

import ast
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# Modules that may know Theano and Lasagne; all of model/engine may.
KNOW_THEANO = {"model.layers", "model.network", "model.trainer", "model.updater"}
# What only a training needs.
OF_TRAINING = {"model.training", "model.trainer", "model.updater", "model.schedule", "model.slots",
               "model.processes", "model.mpi", "model.warm_start", "model.training_log",
               "model.work_clock"}
# Modules that may know Luigi.
KNOW_LUIGI = {"pipeline.__main__", "pipeline.daemon", "pipeline.failures", "pipeline.settings",
              "pipeline.stage", "pipeline.tasks", "pipeline.workers"}


def modules():
    """All modules of the project by name, and where they lie."""
    found = {}
    for package in ("model", "pipeline"):
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(name):
    """The names that a module imports, wherever in it: modules, or modules and what is in them."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        found |= names_in(name, node)
    return found


def names_in(name, node):
    """The names that one statement of a module imports."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if not isinstance(node, ast.ImportFrom):
        return set()
    module = node.module
    if node.level:
        package = name if MODULES[name].stem == "__init__" else name.rpartition(".")[0]
        above = package.split(".")[:len(package.split(".")) - node.level + 1]
        module = ".".join(filter(None, [*above, node.module]))
    return {f"{module}.{alias.name}" for alias in node.names}


def imported_at_once(name):
    """Statements that import something when a module is imported; those in functions come later."""
    waiting = [*ast.parse(MODULES[name].read_text()).body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, (ast.ClassDef, ast.Try, ast.With)):
            waiting += node.body
        elif isinstance(node, ast.If) and ast.unparse(node.test) != "TYPE_CHECKING":
            waiting += [*node.body, *node.orelse]


def of_the_interface():
    """The modules that `lstm_model` imports, and what each imports with them."""
    found, waiting = {}, ["model.language_model", "model.trial"]  # the latter reads a file first
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = [*imported_at_once(name)]
            names = set().union(*(names_in(name, node) for node in found[name]))
            waiting += {each for of in names for each in (of, of.rpartition(".")[0])
                        if each in MODULES and each != name}
    return found


def neighbours(name):
    """The modules of the project that a module imports."""
    return {each for of in imported(name) for each in (of, of.rpartition(".")[0])
            if each in MODULES and each != name}


def reached(name):
    """The modules of the project that are imported where a module is, it among them."""
    found, waiting = set(), [name]
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            # Who imports a module imports the packages that it lies in.
            parents = [each.rsplit(".", n)[0] for n in range(1, each.count(".") + 1)]
            waiting += [*neighbours(each), *(parent for parent in parents if parent in MODULES)]
    return found


def top_levels(name):
    return {each.split(".")[0] for each in imported(name)}


def test_the_rules_see_the_imports():
    assert {"theano", "lasagne", "model"} <= top_levels("model.updater")
    assert "model.system.errors" in reached("pipeline.tasks")
    assert "model.updater" in reached("model.training") - neighbours("model.training")


@pytest.mark.parametrize("name", [name for name in MODULES if name.split(".")[0] == "model"])
def test_the_model_knows_nothing_of_the_pipeline(name):
    assert not {"pipeline", "luigi"} & top_levels(name)


@pytest.mark.parametrize("name", MODULES)
def test_theano_is_known_in_few_rooms(name):
    if name not in KNOW_THEANO and not name.startswith("model.engine"):
        assert not {"theano", "lasagne"} & top_levels(name)


@pytest.mark.parametrize("name", MODULES)
def test_mpi_is_known_in_one_room(name):
    assert ("mpi4py" in top_levels(name)) == (name == "model.mpi")


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith("model.engine")])
def test_the_engine_is_used_by_its_face(name):
    face = {f"model.engine.{each}" for each in exported("model.engine")}
    used = {each for each in imported(name) if each.startswith("model.engine.")}
    assert used <= face


def exported(name):
    """What a module lists in ``__all__``."""
    for node in ast.parse(MODULES[name].read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    raise AssertionError(f"{name} has no __all__")


@pytest.mark.parametrize("name", ["model.inference", "model.scoring", "model.sampling",
                                  "model.rescoring", "model.description", "model.evaluation",
                                  "model.export", "model.language_model"])
def test_using_a_model_imports_no_training(name):
    assert not OF_TRAINING & reached(name)


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("model.system")])
def test_the_lowest_rooms_know_none_above(name):
    above = {each for each in reached(name) if not each.startswith("model.system")} - {"model"}
    # What tries out a file that somebody named reads it as the commands do.
    assert above <= ({"model.description"} if name == "model.system.untrusted" else set())


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("model.data")])
def test_words_and_shards_know_no_network(name):
    assert all(each == "model" or each.startswith(("model.data", "model.system"))
               for each in reached(name))


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("pipeline")])
def test_luigi_is_known_in_few_rooms(name):
    if name not in KNOW_LUIGI:
        assert "luigi" not in top_levels(name)


def test_the_interface_needs_numpy_and_h5py_alone():
    found = of_the_interface()
    assert {"model.data.tokenization", "model.numpy_network", "model.system.hdf5"} <= {*found}
    tops = {each.partition(".")[0] for name, nodes in found.items()
            for node in nodes for each in names_in(name, node)}
    assert tops - {*sys.stdlib_module_names} <= {"model", "numpy", "h5py"}


@pytest.mark.parametrize("name", sorted(of_the_interface()))
def test_the_interface_has_no_name_for_our_folders(name):
    """In the installed package `model` lies in another, and a program may have a `model` itself."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            assert not any(alias.name.partition(".")[0] == "model" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            assert node.module.partition(".")[0] != "model"


@pytest.mark.parametrize("name", MODULES)
def test_nothing_imports_a_command(name):
    assert not {each for each in neighbours(name) if each.endswith("__main__")}


@pytest.mark.parametrize("name", MODULES)
def test_what_is_private_stays_in_its_room(name):
    private = {each for each in imported(name)
               if each.rpartition(".")[0] in MODULES and each.rpartition(".")[2].startswith("_")}
    assert not private


def test_no_import_runs_in_a_circle():
    done, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path[path.index(name):], name])
        if name not in done:
            path.append(name)
            for each in neighbours(name):
                # A package's face imports its rooms, which are in the package.
                if not name.startswith(f"{each}."):
                    visit(each)
            path.pop()
            done.add(name)

    for name in MODULES:
        visit(name)
