"""Where the output lies: never among what is read."""

from finetune_api.kinds.finetunejob.spec import FineTuneJobSpec
from finetune_api.rules.rule import Rule, when


def _is_inside(inner: str, outer: str) -> bool:
    return f"{inner.rstrip('/')}/".startswith(f"{outer.rstrip('/')}/")


def _find_data_overlap(spec: FineTuneJobSpec) -> str | None:
    output = spec.output.uri
    parts = (part for dataset in spec.data for part in (dataset.train, dataset.validation, dataset.test))
    uris = [part.uri for part in parts if part is not None]
    return when(any(_is_inside(output, uri) or _is_inside(uri, output) for uri in uris), output)


def _find_model_overlap(spec: FineTuneJobSpec) -> str | None:
    return when(_is_inside(spec.output.uri, spec.model.uri), spec.output.uri)


def _as_folder(uri: str) -> str:
    return f"({uri}.endsWith('/') ? {uri} : {uri} + '/')"


_OUTPUT = _as_folder("self.output.uri")
_DATA_CEL = " && ".join(
    f"self.data.all(d, {guard}(!{_OUTPUT}.startsWith({_as_folder(f'd.{part}.uri')}) "
    f"&& !{_as_folder(f'd.{part}.uri')}.startsWith({_OUTPUT})))"
    for part, guard in (
        ("train", ""),
        ("validation", "!has(d.validation) || "),
        ("test", "!has(d.test) || "),
    )
)

RULES: tuple[Rule, ...] = (
    Rule(
        "output.uri",
        _DATA_CEL,
        "must lie outside the data, and the data outside of it; choose another folder",
        _find_data_overlap,
    ),
    Rule(
        "output.uri",
        # The other way round is how a run goes on from what an earlier one published.
        f"!{_OUTPUT}.startsWith({_as_folder('self.model.uri')})",
        "must lie outside the base model's folder: every file there is taken for the model's; choose another folder",
        _find_model_overlap,
    ),
)
