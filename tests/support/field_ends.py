"""Every field's ends and their neighbours: what is accepted, what is refused and by which words.

Used offline and on the real API server, which must say the same. A row edits a valid object; `also` makes the edit
the only thing in question. Values stand beside the sentence that makes them an end.
"""

from dataclasses import dataclass
from typing import Any

from malformed import Malformed
from manifests import Manifest, edit_manifest, make_manifest

BLANK = "\u00a0"
DIGEST = "0" * 64
URI = "must be an address of the form s3://bucket/"
NAME = "must be the name of a Kubernetes object"
IMAGE = "must be the name of an image"
UNSEEN = "must not contain control or invisible characters"
DECIMAL = 'must be a decimal string above 0 such as "2"'
FRACTION = 'must be a decimal string from "0" to "1"'
BELOW_ONE = 'must be a decimal string from "0" to below "1"'
NO_LORA = "unless method.kind is LoRA: it has no effect elsewhere"


@dataclass(frozen=True)
class Accepted:
    """One object that both sides accept."""

    sentence: str
    path: str
    value: Any
    also: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Ends:
    """One field: values that are accepted, and those that are refused by some words."""

    path: str
    accepted: tuple[Any, ...]
    refused: tuple[tuple[Any, str], ...]
    also: tuple[tuple[str, Any], ...] = ()
    is_item: bool = False
    """The values are the only item of the list at `path`."""

    def build_value(self, value: Any) -> Any:
        return [value] if self.is_item else value


ADDRESSES = (
    ("s3://data/a ", URI), (" s3://data/a", URI), ("s3://data/ a", URI), ("s3://data/a /b", URI), ("s3://data/a\t", URI),
    ("s3://data/a\nb", URI), ("s3://data/\x1b[31m", URI), ("s3://data/a\x00", URI), (f"s3://data/a{BLANK}", URI),
    ("s3://data/a\u200b", URI), ("s3://data/a\u202eb", URI), ("s3://data/a\\b", URI), ("S3://data/a", URI),
    ("s3://Data/a", URI), ("s3://da/a", URI), ("s3://" + "a" * 64 + "/b", URI), ("s3://-data/a", URI), ("", URI),
    ("s3://data/a/../b", "path segments"), ("s3://data/.", "path segments"), ("s3://da..ta/a", "name of a bucket"),
    ("s3://data/" + "a" * 1015, "at most 1024 characters"), (5, "must be a decimal string"), (None, "must be a string"),
)  # fmt: skip
GOOD_ADDRESSES = (
    "s3://data", "s3://abc/", "s3://" + "a" * 63 + "/b", "s3://data/a b/c d.jsonl", "s3://data/größe/日本.jsonl",
    "s3://data/" + "a" * 1014, "s3://da.ta/..a", "s3://data/**/*.jsonl.gz",
)  # fmt: skip
NAMES = (("A", NAME), ("a b", NAME), ("-a", NAME), ("a/b", NAME), ("a\n", NAME), ("a" * 254, "at most 253 characters"))
GOOD_NAMES = ("", "a", "a.b-c", "a" * 253)

ENDS = (
    Ends("spec.model.uri", ("s3://models/a.gguf", "s3://models/a b/"), ADDRESSES),
    Ends("spec.model.sha256", ("", DIGEST), ((DIGEST[1:], "64 hex"), ("A" * 64, "64 hex"), (DIGEST + "0", "at most 64"))),
    Ends("spec.data.0.train.uri", GOOD_ADDRESSES, ADDRESSES),
    Ends("spec.data.0.validation.uri", ("s3://data/validation.jsonl",), ADDRESSES[:4]),
    Ends("spec.data.0.test.uri", ("s3://data/test.jsonl",), ADDRESSES[:4]),
    Ends("spec.data.0.name", ("a", "a-1", "0", "a" * 63), (("", "lower-case"), ("A", "lower-case"), ("a-", "lower-case"), ("a" * 64, "at most 63"))),
    Ends("spec.data.0.columns", ({}, {"text": "a b", "label": "Größe "}), (({"text": "a", "label": "a"}, "a column of its own"), ({"text": ""}, "must not be empty"), ({"text": "a\x1bb"}, UNSEEN), ({"text": "a\u200b"}, UNSEEN), ({"text": "a" * 257}, "at most 256"), ({"texts": "a"}, "only roles of the task"), ({"": "a"}, "only roles of the task"))),
    Ends("spec.split.validation", ("0", "0.1", "0.999", "0.0"), (("10%", FRACTION), ("0,1", FRACTION), ("-0.1", FRACTION), ("1.01", FRACTION), (".1", FRACTION), ("0.1 ", FRACTION), ("1", "below 1"), ("", FRACTION), ("nan", FRACTION), ("1e-1", FRACTION))),
    Ends("spec.split.test", ("0", "0.899"), (("10%", FRACTION), ("0.9", "below 1"), ("1e0", FRACTION))),
    Ends("spec.split.stratify", (True, False), (("yes", "true or false"), (1, "true or false"))),
    Ends("spec.method.kind", ("Full", "LoRA", "HeadOnly"), (("QLoRA", "did you mean LoRA?"), ("full", "did you mean Full?"), ("", "must be one of"))),
    Ends("spec.method.quantization", ("None", "Int8", "NF4"), (("4bit", "did you mean NF4?"), ("int8", "did you mean Int8?"), ("NF5", "must be one of"))),
    Ends("spec.method.lora.rank", (1, 512), ((0, "greater than 0"), (513, "at most 512"), (-1, "greater than 0"), (8.5, "whole number"), ("8", "whole number"))),
    Ends("spec.method.lora.alpha", (1, 4096), ((0, "greater than 0"), (4097, "at most 4096"))),
    Ends("spec.method.lora.dropout", ("0", "0.05", "0.999999", "0.0"), (("1", BELOW_ONE), ("1.0", BELOW_ONE), ("1.5", BELOW_ONE), ("-0.1", BELOW_ONE), ("5%", BELOW_ONE), (0.1, "write it in quotes"))),
    Ends("spec.method.lora.targetModules", (["all-linear"], ["query", "encoder.layer.0.key"], ["a" * 128]), ((["all-linear", "query"], "beside all-linear a name has no effect"), (["a b"], "must be the name of a layer"), ([""], "must not be empty"), (["a" * 129], "at most 128"), ([], "at least 1 item"), (["a\n"], "name of a layer")), ),
    Ends("spec.method.lora.variant", ("Standard", "RSLoRA", "DoRA"), (("dora", "did you mean DoRA?"),)),
    Ends("spec.training.epochs", ("0.01", "50", "5e1", "2.5", "1E0", "0.5e+1"), (("0.009", "from 0.01 to 50"), ("50.1", "from 0.01 to 50"), ("1e9", "from 0.01 to 50"), ("0", DECIMAL), ("2,5", DECIMAL), ("two", DECIMAL), (2, "write it in quotes"), ("0.0", DECIMAL), ("1" * 33, "at most 32 characters"))),
    Ends("spec.training.maxSteps", (1, 10_000_000), ((0, "at least 1"), (10_000_001, "at most 10000000"), ("5", "whole number"))),
    Ends("spec.training.batchSize", (1, 65536), ((0, "at least 1"), (65537, "at most 65536"))),
    Ends("spec.training.learningRate", ("1e-9", "1", "0.001", "1E-3", "1.0"), (("0,001", DECIMAL), ("1e-3 ", DECIMAL), (" 1e-3", DECIMAL), ("1e-10", "from 1e-9 to 1"), ("1.1", "from 1e-9 to 1"), ("+1e-3", DECIMAL), ("1e", DECIMAL), ("1e-3\n", DECIMAL), ("inf", DECIMAL), ("1e-100", DECIMAL), (0.001, 'write it in quotes: "0.001"'), ("", DECIMAL))),
    Ends("spec.training.scheduler", ("linear", "cosine", "constant", "constant_with_warmup"), (("cosine_with_restarts", "must be one of"), ("polynomial", "must be one of"))),
    Ends("spec.training.warmupFraction", ("0", "0.5", "0.999"), (("1", BELOW_ONE), ("3%", BELOW_ONE), ("1.0", BELOW_ONE))),
    Ends("spec.training.weightDecay", ("0", "1", "0.01", "1.0"), (("1.01", FRACTION), ("-0.01", FRACTION), ("0,01", FRACTION))),
    Ends("spec.training.maxLength", (8, 1_048_576), ((7, "at least 8"), (1_048_577, "at most 1048576"))),
    Ends("spec.training.packing", (True, False), (("no", "true or false"),)),
    Ends("spec.training.rowsWithoutTarget", ("Refuse", "Drop"), (("drop", "did you mean Drop?"), ("Skip", "must be one of")), also=(("spec.task", "CausalLM"),)),
    Ends("spec.training.specialTokensInText", ("Warn", "Text", "Refuse"), (("warn", "did you mean Warn?"), ("Ignore", "must be one of"))),
    Ends("spec.training.omittedTurns", ("Refuse", "Warn"), (("warn", "did you mean Warn?"), ("Drop", "must be one of")), also=(("spec.task", "InstructionTuning"),)),
    Ends("spec.training.precision", ("Auto", "Float32", "BFloat16"), (("bf16", "did you mean BFloat16?"), ("fp32", "did you mean Float32?"))),
    Ends("spec.training.seed", (0, 2_147_483_647), ((-1, "at least 0"), (2_147_483_648, "at most 2147483647"))),
    Ends("spec.training.earlyStopping.patience", (1, 100), ((0, "at least 1"), (101, "at most 100"))),
    Ends("spec.training.earlyStopping.minDelta", ("0", "0.5", "1e-4"), (("-1", "must be a decimal string"), ("0,5", "must be a decimal string"), ("", "must be a decimal string"))),
    Ends("spec.evaluation.every", ("Epoch", "End"), (("epoch", "did you mean Epoch?"), ("steps", "did you mean Steps?"), ("no", "did you mean End?"))),
    Ends("spec.evaluation.everySteps", (1, 10_000_000), ((0, "at least 1"), (10_000_001, "at most 10000000")), also=(("spec.evaluation.every", "Steps"),)),
    Ends("spec.evaluation.bestMetric", ("", "accuracy", "loss"), (("Accuracy", "a metric of the task"), ("a b", "a metric of the task"), ("perplexity", "a metric of the task"), ("a" * 65, "at most 64"))),
    Ends("spec.evaluation.compareWithBase", (True, False), (("true", "true or false"),)),
    Ends("spec.output.uri", ("s3://runs", "s3://runs/a b/"), (*ADDRESSES[:12], ("s3://models/minilm", "outside the base model's folder"), ("s3://models/minilm/out", "outside the base model's folder"), ("s3://datasets/movies", "outside the data"))),
    Ends("spec.output.merge", (False,), ((True, "adapters unmerged"),)),
    Ends("spec.storage.secretName", GOOD_NAMES, NAMES),
    Ends("spec.storage.endpointURL", ("", "https://s3.example.com", "http://s3:8333", "https://10.0.0.1:65535/", "https://s3.example.com."), (("s3.example.com", "http:// or https://"), ("https://s3.example.com/path", "without a path"), ("https://user:pw@s3", "http:// or https://"), ("https://s3:0", "http:// or https://"), ("https://s3:65536", "http:// or https://"), ("https://s3..com", "http:// or https://"), ("https://s3\n", "http:// or https://"), ("https://s3 ", "http:// or https://"), ("ftp://s3", "http:// or https://"), ("https://-s3", "http:// or https://"), ("https://s3\x1b", "http:// or https://"))),
    Ends("spec.storage.region", ("us-east-1", "garage", ""), (("US", "must be a region"), ("eu west", "must be a region"), ("a" * 65, "at most 64"))),
    Ends("spec.storage.addressingStyle", ("path", "virtual"), (("Path", "did you mean path?"), ("auto", "did you mean virtual?"))),
    Ends("spec.resources.gpus", (0, 16), ((-1, "at least 0"), (17, "at most 16"))),
    Ends("spec.resources.nodes", (1,), ((0, "at least 1"), (2, "on one node"), (65, "at most 64"))),
    Ends("spec.resources.cpu", ("100m", "0.1", 1, "4096", 4), (("0", "from 100m to 4096"), (0, "from 100m to 4096"), ("99m", "from 100m to 4096"), ("0.099", "from 100m to 4096"), ("4097", "from 100m to 4096"), ("1k", "must be cores"), ("4 cores", "must be cores"), ("0.5m", "must be cores"), ("-1", "must be cores"), (-1, "must be cores"), ("", "must be cores"), ("1e3", "must be cores"))),
    Ends("spec.resources.memory", ("512Mi", "64Ti", "16Gi", 17179869184, "0.5Gi", "4G"), (("0", "from 512Mi to 64Ti"), (0, "from 512Mi to 64Ti"), ("1Mi", "from 512Mi to 64Ti"), ("511Mi", "from 512Mi to 64Ti"), ("16", "from 512Mi to 64Ti"), ("65Ti", "from 512Mi to 64Ti"), ("2000m", "must be bytes"), ("16GB", "must be bytes"), ("16gi", "must be bytes"), ("-1Gi", "must be bytes"), (-1, "must be bytes"), ("1Ei", "must be bytes"), ("", "must be bytes"))),
    Ends("spec.resources.scratch", ("256Mi", "1Pi", "50Gi"), (("0", "from 256Mi to 1Pi"), ("255Mi", "from 256Mi to 1Pi"), ("2Pi", "from 256Mi to 1Pi"), ("50000m", "must be bytes"), ("none", "must be bytes"))),
    Ends("spec.resources.gpuResource", ("nvidia.com/gpu", "amd.com/gpu", "nvidia.com/mig-1g.10gb"), (("gpu", "extended resource"), ("NVIDIA.com/gpu", "extended resource"), ("../..", "extended resource"), ("nvidia.com/", "extended resource"), ("nvidia.com/" + "a" * 64, "extended resource"), ("kubernetes.io/gpu", "device plugin's resource"), ("x.kubernetes.io/gpu", "device plugin's resource"))),
    Ends("spec.placement.nodeSelector", ({}, {"a": ""}, {"example.com/pool": "gpu-1"}, {"a" * 63: "b" * 63}), (({"a b": "x"}, "keys of labels"), ({"": "x"}, "keys of labels"), ({"a" * 64: "x"}, "keys of labels"), ({"A.com/x": "x"}, "keys of labels"), ({"a/b/c": "x"}, "keys of labels"), ({"a\n": "x"}, "keys of labels"))),
    Ends("spec.placement.nodeSelector.pool", ("", "a" * 63, "A_b.c"), (("-a", "label's value"), ("a" * 64, "at most 63"), ("a b", "label's value"))),
    Ends("spec.placement.tolerations", ({"key": "a"}, {"operator": "Exists"}, {"key": "example.com/a", "value": "b", "effect": "NoExecute"}), (({"key": "a", "operator": "In"}, "must match"), ({"key": "a", "effect": "Never"}, "must match"), ({"key": "a", "value": "-"}, "label's value"), ({"key": "a" * 64, "operator": "Exists"}, "label's key")), is_item=True),
    Ends("spec.placement.priorityClassName", ("", "high", "systems"), (*NAMES, ("system-node-critical", "must not begin with system-"), ("system-", NAME), ("system-x", "must not begin with system-"))),
    Ends("spec.placement.queueName", ("", "team-a", "q" * 63), (("Team", NAME), ("q" * 64, "at most 63"))),
    Ends("spec.placement.runtimeClassName", GOOD_NAMES, NAMES[:4]),
    Ends("spec.placement.serviceAccountName", GOOD_NAMES, NAMES[:4]),
    Ends("spec.trainer.image", ("", "trainer", "r.example.com:5000/a/b-c_d:v1.0", f"r/a@sha256:{DIGEST}", f"r/a:1@sha256:{DIGEST}", "localhost/x"), (("Upper/Case", IMAGE), ("r/A", IMAGE), ("r/a:", IMAGE), ("r/a@sha256:abc", IMAGE), ("user:pw@r/a", IMAGE), ("http://r/a", IMAGE), ("r//a", IMAGE), ("r/a ", IMAGE), ("r/a\n", IMAGE), ("r/../a", IMAGE), ("r/a:" + "t" * 129, IMAGE), ("r:0/a", IMAGE), ("a" * 513, "at most 512"))),
    Ends("spec.trainer.imagePullSecrets", ({"name": "a"}, {"name": "a.b"}), (({"name": ""}, "must not be empty"), ({"name": "A"}, NAME), ({"name": "a" * 254}, "at most 253")), is_item=True),
    Ends("spec.trainer.env", ({"name": "TZ"}, {"name": "NCCL_DEBUG", "value": "a b"}, {"name": "TOKENIZERS_PARALLELISM", "value": ""}), (({"name": "TZ", "value": "a\nb"}, UNSEEN), ({"name": "TZ", "value": "\x1b"}, UNSEEN), ({"name": "1A"}, "environment variable"), ({"name": "A=B"}, "environment variable"), ({"name": "A" * 129}, "at most 128"), ({"name": "TZ", "value": "a" * 4097}, "at most 4096"), ({"name": "api_key"}, "named like secrets"), ({"name": "LD_PRELOAD"}, "operator's to decide"), ({"name": "AWS_CONFIG_FILE"}, "operator's to decide"), ({"name": "FINETUNE_STORE_FOLDER"}, "operator's to decide"), ({"name": "AWS_REGION"}, "operator's to decide")), is_item=True),
    Ends("spec.runPolicy.suspend", (True, False), (("false", "true or false"),)),
    Ends("spec.runPolicy.backoffLimit", (0, 20), ((-1, "at least 0"), (21, "at most 20"))),
    Ends("spec.runPolicy.activeDeadlineSeconds", (60, 31_536_000), ((59, "at least 60"), (31_536_001, "at most 31536000"))),
    Ends("spec.runPolicy.pendingDeadlineSeconds", (1, 31_536_000), ((0, "at least 1"), (31_536_001, "at most 31536000"))),
    Ends("spec.runPolicy.checkpoint.everySeconds", (10, 86_400), ((9, "at least 10"), (86_401, "at most 86400"), ("60", "must be a whole number")), also=(("spec.runPolicy.activeDeadlineSeconds", 100_000),)),
    Ends("spec.runPolicy.checkpoint.keep", (1, 10), ((0, "at least 1"), (11, "at most 10"))),
    Ends("spec.runPolicy.checkpoint.keepAfterSuccess", (True, False), (("true", "true or false"),)),
    Ends("spec.runPolicy.preemptionLimit", (0, 10_000), ((-1, "at least 0"), (10_001, "at most 10000"))),
    Ends("spec.runPolicy.ttlSecondsAfterFinished", (0, 31_536_000), ((-1, "at least 0"), (31_536_001, "at most 31536000"))),
    Ends("metadata.name", ("a", "a" * 40, "a-1"), (("a" * 41, "at most 40"), ("a-", "must consist of"), ("a_b", "must consist of"))),
)  # fmt: skip

NO_ROWS = (("spec.split.validation", "0"),)
BOTH_FILES = (
    ("spec.data.0.validation", {"uri": "s3://data/v.jsonl"}),
    ("spec.data.0.test", {"uri": "s3://data/t.jsonl"}),
)
LANGUAGE = (("spec.task", "CausalLM"),)

_LORA_WITHOUT_EFFECT = tuple(
    Malformed(f"{path.rpartition('.')[2]} under {kind}", path, value, path, NO_LORA, also=(("spec.method.kind", kind),))
    for kind in ("Full", "HeadOnly")
    for path, value in (
        ("spec.method.lora.rank", 16),
        ("spec.method.lora.alpha", 32),
        ("spec.method.lora.dropout", "0.1"),
        ("spec.method.lora.targetModules", ["query"]),
        ("spec.method.lora.variant", "DoRA"),
    )
)
WITHOUT_EFFECT = (
    *_LORA_WITHOUT_EFFECT,
    Malformed("quantization under Full", "spec.method.quantization", "NF4", "spec.method.quantization", "must be None unless", also=(("spec.method.kind", "Full"),)),
    Malformed("a share beside a validation file", "spec.split.validation", "0.2", "spec.split.validation", "where a validation file is given", also=BOTH_FILES),
    Malformed("a share beside a test file", "spec.split.test", "0.2", "spec.split.test", "where a test file is given", also=BOTH_FILES),
    Malformed("stratify where nothing is split off", "spec.split.stratify", False, "spec.split.stratify", "where nothing is split off", also=BOTH_FILES),
    Malformed("stratify without labels", "spec.split.stratify", False, "spec.split.stratify", "for a task without labels", also=LANGUAGE),
    Malformed("rows without target where each has a label", "spec.training.rowsWithoutTarget", "Drop", "spec.training.rowsWithoutTarget", "for a task with labels"),
    Malformed("omitted turns where there are none", "spec.training.omittedTurns", "Warn", "spec.training.omittedTurns", "others have no turns"),
    Malformed("omitted turns of texts", "spec.training.omittedTurns", "Warn", "spec.training.omittedTurns", "unless task is InstructionTuning", also=LANGUAGE),
    Malformed("warm-up of a constant rate", "spec.training.warmupFraction", "0.1", "spec.training.warmupFraction", "constant_with_warmup", also=(("spec.training.scheduler", "constant"),)),
    Malformed("early stopping without rows", "spec.training.earlyStopping", {}, "spec.training.earlyStopping", "needs rows to go by", also=NO_ROWS),
    Malformed("a best metric without rows", "spec.evaluation.bestMetric", "accuracy", "spec.evaluation.bestMetric", "no checkpoint can be chosen", also=NO_ROWS),
    Malformed("an interval without rows", "spec.evaluation.every", "End", "spec.evaluation.every", "no rows to evaluate on", also=NO_ROWS),
    Malformed("a comparison without rows", "spec.evaluation.compareWithBase", False, "spec.evaluation.compareWithBase", "neither validation nor test rows", also=NO_ROWS),
    Malformed("an interval beyond the end", "spec.evaluation.everySteps", 11, "spec.evaluation.everySteps", "never reached", also=(("spec.evaluation.every", "Steps"), ("spec.training.maxSteps", 10))),
    Malformed("a GPU's resource without GPUs", "spec.resources.gpuResource", "amd.com/gpu", "spec.resources.gpuResource", "where resources.gpus is 0", also=(("spec.resources.gpus", 0),)),
    Malformed("fewer samples than GPUs", "spec.training.batchSize", 2, "spec.training.batchSize", "at least resources.gpus", also=(("spec.resources.gpus", 4),)),
)  # fmt: skip
"""Options in a context where they would do nothing, and fields that need one another."""

WITH_EFFECT = (
    Accepted("the defaults of LoRA under Full", "spec.method", {"kind": "Full", "lora": {"rank": 8, "dropout": "0.05"}}),
    Accepted("no warm-up with a constant rate", "spec.training", {"scheduler": "constant", "warmupFraction": "0"}),
    Accepted("a comparison on test rows alone", "spec.evaluation.compareWithBase", False, also=(("spec.split", {"validation": "0", "test": "0.2"}),)),
    Accepted("stratify with one of two files", "spec.split.stratify", False, also=(("spec.data.0.test", {"uri": "s3://data/t.jsonl"}),)),
    Accepted("an interval that ends with the run", "spec.evaluation.everySteps", 10, also=(("spec.evaluation.every", "Steps"), ("spec.training.maxSteps", 10))),
    Accepted("an output beside the base model", "spec.output.uri", "s3://models/minilm-tuned"),
    Accepted("an output above the base model: going on from an earlier run", "spec.output.uri", "s3://models"),
    Accepted("DoRA on int8 on a GPU", "spec.method", {"quantization": "Int8", "lora": {"variant": "DoRA"}}),
    Accepted("as many samples as GPUs", "spec.training.batchSize", 4, also=(("spec.resources.gpus", 4),)),
)  # fmt: skip

ACCEPTED = WITH_EFFECT + tuple(
    Accepted(f"{ends.path} {value!r}"[:90], ends.path, ends.build_value(value), ends.also)
    for ends in ENDS
    for value in ends.accepted
)
REFUSED = WITHOUT_EFFECT + tuple(
    Malformed(f"{ends.path} {value!r}"[:90], ends.path, ends.build_value(value), "", text, also=ends.also)
    for ends in ENDS
    for value, text in ends.refused
)


def build_manifest(case: Malformed | Accepted) -> Manifest:
    """Return the valid object with the edits of a case."""
    manifest = edit_manifest(make_manifest(), case.path, case.value)
    for path, value in case.also:
        manifest = edit_manifest(manifest, path, value)
    return manifest
