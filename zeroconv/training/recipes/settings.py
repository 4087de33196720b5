"""What all settings of recipes share: no misspelt name passes, every number has a range, an error
is one sentence.
"""

from __future__ import annotations

import difflib
import reprlib
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from zeroconv.errors import UserError

R = TypeVar("R", bound=BaseModel)

_show = reprlib.Repr()
_show.maxstring = _show.maxother = _show.maxlong = 80

# pydantic's names of what is wrong with a number
_NUMBER_ERRORS = (
    *(
        "greater_than",
        "greater_than_equal",
        "less_than",
        "less_than_equal",
        "finite_number",
        "no_number",
    ),
    *(
        "int_type",
        "int_parsing",
        "int_from_float",
        "int_parsing_size",
        "float_type",
        "float_parsing",
    ),
)


class Strict(BaseModel):
    """A misspelt setting is an error, never ignored."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=65_536
    )

    @field_validator("*", mode="before")
    @classmethod
    def _yes_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Python takes True for 1."""
        field = cls.model_fields[str(info.field_name)]

        if isinstance(value, bool) and numbers_of(field) and bool not in _parts(field.annotation):
            raise PydanticCustomError("no_number", "a number is needed")
        return value


def check_recipe(kind: type[R], values: dict[str, Any], name: str) -> R:
    """The recipe of a kind that these values make; UserError, one sentence, for the first of them
    that is wrong.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{name}: {_sentence(error.errors()[0], kind)}.") from error


def numbers_of(field: FieldInfo) -> set[type]:
    """Which kinds of numbers a setting takes, without those within a list; none for one that takes
    no number.
    """
    return _parts(field.annotation) & {int, float}


def bounds_of(field: FieldInfo) -> tuple[str | None, str | None]:
    """How the least and the greatest number of a setting are said; None where there is none."""
    words: dict[str, str] = {}

    for limit in field.metadata:
        for sign in ("gt", "ge", "lt", "le"):
            if (value := getattr(limit, sign, None)) is not None:
                shown = f"{value:,}" if isinstance(value, int) else f"{value:g}"
                words[sign] = {"gt": "more than ", "lt": "less than "}.get(sign, "") + shown
    return words.get("ge", words.get("gt")), words.get("le", words.get("lt"))


def _parts(annotation: Any) -> set[Any]:
    """ "int | None" → int and None."""
    return set(get_args(annotation)) | {annotation}


def _nested(annotation: Any) -> set[Any]:
    """The same, and of "tuple[X, ...]" also X."""
    parts = _parts(annotation)
    return parts.union(*(_parts(part) for part in parts))


# what pydantic wants, by the type of its error, in words of a recipe
_WANTED = {
    "path_type": "a path",
    "string_type": "a text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "one value, or a list of them",
    "list_type": "a list, such as [1, 2]",
    "dict_type": "settings, such as {name: value}",
    "model_type": "settings, such as {name: value}",
    "model_attributes_type": "settings, such as {name: value}",
}


def _sentence(error: Any, kind: type[BaseModel]) -> str:
    name = ".".join(str(part) for part in error["loc"])[:200]

    if error["type"] == "extra_forbidden":
        return f"there is no setting {name}{_suggestion(error['loc'], kind)}"
    if error["type"] == "missing":
        return f"{name} is missing"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"]).rstrip(".")

    shown = _show.repr(error["input"])
    if error["type"] in _NUMBER_ERRORS and (wanted := _range(error["loc"], kind)):
        return f"{name} is {shown}; give {wanted}"
    if error["type"] in _WANTED:
        given = "empty" if error["input"] is None else shown
        return f"{name} is {given}; give {_WANTED[error['type']]}"
    return f"{name} is {shown}: {error['msg'][:1].lower()}{error['msg'][1:]}"


def _range(loc: tuple, kind: type[BaseModel]) -> str | None:
    """ "a whole number from 1 to 1,024" for the setting at a place; None where the place is within
    a list.
    """
    model: Any = _model(loc[:-1], kind)
    field = getattr(model, "model_fields", {}).get(loc[-1])

    if field is None or not (numbers := numbers_of(field)):
        return None
    least, most = bounds_of(field)
    return f"a {'number' if float in numbers else 'whole number'} from {least} to {most}"


def _suggestion(loc: tuple, kind: type[BaseModel]) -> str:
    fields = _model(loc[:-1], kind).model_fields
    close = difflib.get_close_matches(str(loc[-1])[:80], fields, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(fields)}"


def _model(loc: tuple, kind: type[BaseModel]) -> Any:
    """The settings at a place of a recipe, for a place within them."""
    model: Any = kind
    for part in loc:
        if isinstance(part, int):  # of a list of settings
            continue
        model = getattr(model, "model_fields", {}).get(part)
        annotation = getattr(model, "annotation", None)
        # of "settings or None"
        model = next(
            (one for one in _nested(annotation) if hasattr(one, "model_fields")), annotation
        )
    return model
