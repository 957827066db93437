"""The table of malformed FineTuneJobs: the edit that breaks a valid one, the path to blame and the words of the rule.

Used offline (`finetune validate`) and against the real API server, so that both refuse the same objects.
"""

from dataclasses import dataclass
from typing import Any

from manifests import REMOVED


@dataclass(frozen=True)
class Malformed:
    """One broken object.

    Attributes:
        path, value: the edit of a valid manifest.
        want_path: the field to be named, as the product spells it.
        want_text: what the offline message must contain.
        server_path: the field as the API server names it, where that differs.
        server_accepts: True where the API server drops the field instead (unknown fields, unless the client is strict).
    """

    sentence: str
    path: str
    value: Any
    want_path: str
    want_text: str
    server_path: str = ""
    server_accepts: bool = False
    also: tuple[tuple[str, Any], ...] = ()


DATASET = {"name": "more", "train": {"uri": "s3://datasets/more.jsonl"}}

MALFORMED = (
    Malformed("a name of 41 characters", "metadata.name", "a" * 41, "metadata.name", "at most 40 characters"),
    Malformed("a name with a dot", "metadata.name", "movies.v2", "metadata.name", "must consist of"),
    Malformed("a name that begins with a digit", "metadata.name", "2movies", "metadata.name", "begin with a letter"),
    Malformed("no spec", "spec", REMOVED, "spec", "is missing"),
    Malformed("no task", "spec.task", REMOVED, "spec.task", "is missing"),
    Malformed("a misspelt task", "spec.task", "CausaLM", "spec.task", "did you mean CausalLM?"),
    Malformed("a task not built yet", "spec.task", "Seq2SeqLM", "spec.task", "no other task yet"),
    Malformed("no model", "spec.model", REMOVED, "spec.model", "is missing"),
    Malformed("a model without address", "spec.model", {}, "spec.model.uri", "is missing"),
    Malformed("a model on a file system", "spec.model.uri", "/models/minilm", "spec.model.uri", "s3://"),
    Malformed("a model on the Hub", "spec.model.uri", "hf://org/name@main", "spec.model.uri", "copy the model to S3"),
    Malformed("a digest too short", "spec.model.sha256", "abc", "spec.model.sha256", "64 hexadecimal digits"),
    Malformed("a secret's name with two dots", "spec.storage.secretName", "a..b", "spec.storage.secretName", "must be the name of a Kubernetes object"),
    Malformed("a queue's name no label may hold", "spec.placement.queueName", "q" * 64, "spec.placement.queueName", "at most 63 characters"),
    Malformed("a node label with a blank", "spec.placement.nodeSelector", {"gpu": "a 100"}, "spec.placement.nodeSelector.gpu", "must be a label's value", server_path="spec.placement.nodeSelector[gpu]"),
    Malformed("a taint's key with a blank", "spec.placement.tolerations", [{"key": "a b", "operator": "Exists"}], "spec.placement.tolerations[0].key", "must be a label's key"),
    Malformed("a toleration of nothing", "spec.placement.tolerations", [{"effect": "NoSchedule"}], "spec.placement.tolerations", "must each have a key, or operator Exists"),
    Malformed("a toleration of a value that isn't looked at", "spec.placement.tolerations", [{"key": "a", "operator": "Exists", "value": "b"}], "spec.placement.tolerations", "which takes no value"),
    Malformed("no data", "spec.data", [], "spec.data", "at least 1 item"),
    Malformed("two data sets", "spec.data.1", DATASET, "spec.data", "does not mix data sets yet"),
    Malformed("data without a name", "spec.data.0.name", REMOVED, "spec.data[0].name", "is missing"),
    Malformed("data with a bad name", "spec.data.0.name", "Movies!", "spec.data[0].name", "lower-case"),
    Malformed("data without train", "spec.data.0.train", REMOVED, "spec.data[0].train", "is missing"),
    Malformed("an address that leaves its folder", "spec.data.0.train.uri", "s3://datasets/a/../b", "spec.data[0].train.uri", "path segments"),
    Malformed("an address with an empty segment", "spec.data.0.train.uri", "s3://datasets//a", "spec.data[0].train.uri", "s3://"),
    Malformed("a bucket of two letters", "spec.data.0.train.uri", "s3://ab/c", "spec.data[0].train.uri", "s3://"),
    Malformed("a data weight not built yet", "spec.data.0.weight", "2", "spec.data", "instruction empty and weight 1"),
    Malformed("an instruction not built yet", "spec.data.0.instruction", "Say: {text}", "spec.data", "instruction empty"),
    Malformed("a role the task doesn't have", "spec.data.0.columns", {"prompt": "q"}, "spec.data", "only roles of the task"),
    Malformed("a split that leaves nothing", "spec.split", {"validation": "0.5", "test": "0.5"}, "spec.split.validation", "below 1"),
    Malformed("a share above 1", "spec.split.validation", "1.5", "spec.split.validation", 'from "0" to "1"'),
    Malformed("a share as a bare number", "spec.split.test", 0.2, "spec.split.test", 'write it in quotes: "0.2"'),
    Malformed("a method that isn't there", "spec.method.kind", "Lora", "spec.method.kind", "did you mean LoRA?"),
    Malformed("quantization with Full", "spec.method", {"kind": "Full", "quantization": "Int8"}, "spec.method.quantization", "must be None unless"),
    Malformed("quantization with HeadOnly", "spec.method", {"kind": "HeadOnly", "quantization": "NF4"}, "spec.method.quantization", "must be None unless"),
    Malformed("DoRA on int8 on the CPU", "spec.method", {"quantization": "Int8", "lora": {"variant": "DoRA"}}, "spec.method.lora.variant", "must be Standard or RSLoRA", also=(("spec.resources", {"gpus": 0}),)),
    Malformed("a rank of 0", "spec.method.lora.rank", 0, "spec.method.lora.rank", "must be greater than 0"),
    Malformed("a rank of 1000", "spec.method.lora.rank", 1000, "spec.method.lora.rank", "must be at most 512"),
    Malformed("a rank as text", "spec.method.lora.rank", "eight", "spec.method.lora.rank", "must be a whole number"),
    Malformed("a dropout above 1", "spec.method.lora.dropout", "1.5", "spec.method.lora.dropout", 'from "0" to below "1"'),
    Malformed("no target modules", "spec.method.lora.targetModules", [], "spec.method.lora.targetModules", "at least 1 item"),
    Malformed("a preference loss not built yet", "spec.method.preference", "DPO", "spec.method.preference", "no task Preference yet"),
    Malformed("both epochs and maxSteps", "spec.training", {"epochs": "2", "maxSteps": 10}, "spec.training.maxSteps", "keep one of the two"),
    Malformed("51 epochs", "spec.training.epochs", "51", "spec.training.epochs", "from 0.01 to 50"),
    Malformed("0 epochs", "spec.training.epochs", "0", "spec.training.epochs", "above 0"),
    Malformed("a learning rate as a bare number", "spec.training.learningRate", 0.0002, "spec.training.learningRate", 'write it in quotes: "0.0002"'),
    Malformed("a negative learning rate", "spec.training.learningRate", "-1e-4", "spec.training.learningRate", "decimal string"),
    Malformed("a learning rate of 5", "spec.training.learningRate", "5", "spec.training.learningRate", "from 1e-9 to 1"),
    Malformed("a batch of 0", "spec.training.batchSize", 0, "spec.training.batchSize", "must be at least 1"),
    Malformed("a scheduler that isn't there", "spec.training.scheduler", "Linear", "spec.training.scheduler", "did you mean linear?"),
    Malformed("early stopping without evaluations", "spec.training.earlyStopping", {"patience": 1}, "spec.training.earlyStopping", "nothing to stop early on", also=(("spec.evaluation.every", "End"),)),
    Malformed("everySteps without Steps", "spec.evaluation.everySteps", 10, "spec.evaluation.everySteps", "only there"),
    Malformed("Steps without everySteps", "spec.evaluation.every", "Steps", "spec.evaluation.everySteps", "must be given"),
    Malformed("a metric of another task", "spec.evaluation.bestMetric", "perplexity", "spec.evaluation.bestMetric", "a metric of the task"),
    Malformed("an output inside the data", "spec.output.uri", "s3://datasets/movies/train.jsonl/out", "spec.output.uri", "outside the data"),
    Malformed("an output that holds the data", "spec.output.uri", "s3://datasets/movies/", "spec.output.uri", "outside the data"),
    Malformed("an endpoint by variable", "spec.trainer.env", [{"name": "AWS_ENDPOINT_URL_S3", "value": "http://elsewhere"}], "spec.trainer.env", "the operator's to decide"),
    Malformed("other code by variable", "spec.trainer.env", [{"name": "PYTHONPATH", "value": "/scratch"}], "spec.trainer.env", "the operator's to decide"),
    Malformed("merging not built yet", "spec.output.merge", True, "spec.output.merge", "adapters unmerged"),
    Malformed("an endpoint that is no URL", "spec.storage.endpointURL", "s3.demo.svc:8333", "spec.storage.endpointURL", "http:// or https://"),
    Malformed("a secret's name with a slash", "spec.storage.secretName", "other/creds", "spec.storage.secretName", "name of a Kubernetes object"),
    Malformed("a negative number of GPUs", "spec.resources.gpus", -1, "spec.resources.gpus", "at least 0"),
    Malformed("memory that is no quantity", "spec.resources.memory", "16 gigabytes", "spec.resources.memory", "Kubernetes quantity"),
    Malformed("several nodes not built yet", "spec.resources.nodes", 2, "spec.resources.nodes", "trains on one node"),
    Malformed("a literal secret", "spec.trainer.env", [{"name": "HF_TOKEN", "value": "x"}], "spec.trainer.env", "named like secrets"),
    Malformed("a variable with a bad name", "spec.trainer.env", [{"name": "A-B"}], "spec.trainer.env[0].name", "environment variable"),
    Malformed("no checkpoint kept", "spec.runPolicy.checkpoint", {"keep": 0}, "spec.runPolicy.checkpoint.keep", "at least 1"),
    Malformed("a first checkpoint after the deadline", "spec.runPolicy.checkpoint", {"everySeconds": 86_400}, "spec.runPolicy.checkpoint.everySeconds", "before the first checkpoint"),
    Malformed("a deadline of 1 second", "spec.runPolicy.activeDeadlineSeconds", 1, "spec.runPolicy.activeDeadlineSeconds", "at least 60"),
    Malformed("too many retries", "spec.runPolicy.backoffLimit", 100, "spec.runPolicy.backoffLimit", "at most 20"),
    Malformed("an unknown field", "spec.trainig", {"epochs": "1"}, "spec.trainig", "did you mean training?", server_accepts=True),
    Malformed("a field by its Python name", "spec.training.batch_size", 4, "spec.training.batch_size", "did you mean batchSize?", server_accepts=True),
    Malformed("a batch size in quotes", "spec.training.batchSize", "16", "spec.training.batchSize", "must be a whole number"),
    Malformed("a flag in quotes", "spec.runPolicy.suspend", "true", "spec.runPolicy.suspend", "must be true or false"),
    Malformed("a variable given twice", "spec.trainer.env", [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}], "spec.trainer.env", "must not repeat", server_path="spec.trainer.env[1]"),
    Malformed("a target module given twice", "spec.method.lora.targetModules", ["query", "query"], "spec.method.lora.targetModules", "must not repeat", server_path="spec.method.lora.targetModules[1]"),
    Malformed("a negative number of cores", "spec.resources.cpu", -1, "spec.resources.cpu", "Kubernetes quantity"),
    Malformed("an unknown field deep down", "spec.method.lora.rnak", 8, "spec.method.lora.rnak", "did you mean rank?", server_accepts=True),
)  # fmt: skip
"""Every row breaks one thing of a valid object."""
