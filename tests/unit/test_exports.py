"""The public names."""

import mqkit


def test_the_public_names_are_sorted_and_exactly_those_that_are_imported() -> None:
    assert mqkit.__all__ == sorted(mqkit.__all__)
    found = {name for name, value in vars(mqkit).items() if not name.startswith("_") and not is_module(value)}
    assert found == set(mqkit.__all__)


def is_module(value: object) -> bool:
    return type(value).__name__ == "module"


def test_each_public_class_and_function_is_documented() -> None:
    for name in mqkit.__all__:
        value = getattr(mqkit, name)
        if type(value).__module__ not in ("typing", "types", "collections.abc", "pluggy", "pluggy._hooks"):
            assert value.__doc__, name
            assert not value.__doc__.startswith(f"{name}("), f"{name} has only the docstring that dataclass makes"


def test_the_public_methods_of_public_classes_are_documented() -> None:
    for name in mqkit.__all__:
        value = getattr(mqkit, name)
        if isinstance(value, type):
            for method, function in vars(value).items():
                if callable(function) and not method.startswith("_"):
                    assert function.__doc__, f"{name}.{method}"
