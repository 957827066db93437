"""The run: what a pod of a FineTuneJob does. Knows torch and object stores, not Kubernetes.

Follow one row. What it is called, its shape, and where:

| it is              | shape                                     | made by                                         |
|--------------------|-------------------------------------------|-------------------------------------------------|
| an object in S3    | bytes                                     | the user; fetched by `storage`                  |
| a record           | place, names to values                    | `data.readers`                                  |
| a sample           | place, parts with roles, labels           | `tasks.<task>.prepare.parse_sample`             |
| a fingerprint      | two digests and a label, 50 bytes         | `data.fingerprints`; decides its split          |
| a tokenized row    | lists of T ids and targets, numbers       | `tasks.<task>.prepare.tokenize_batch`           |
| a row on disk      | parquet, then flat files mapped from disk | `data.tokenized_files`, `batches.dataset`       |
| a place in a step  | an index in the order of an epoch         | `batches.sampler`                               |
| part of a batch    | [N, T] padded, or [1, T] packed           | `tasks.<task>.train.collate`, `batches.collate` |
| a part of a loss   | a sum beside the number of its targets    | `tasks.<task>.train.compute_loss`, `losses`     |
| part of a gradient | that of the step's mean over all ranks    | `training.trainer`                              |
| part of a figure   | a metric over the whole split             | `evaluation.evaluator`, `evaluation.metrics`    |
| an answer          | logits, in evaluation.json                | `tasks.<task>.train.build_answer`               |

The prepare stage (`stages.prepare`, on a CPU, without torch) ends with the tokenized files; the train stage
(`stages.train`, then `training.run`) begins with them. Folders import downwards only, in this order: `pod`, `stages`,
`training`, `checkpoints`, `publishing`, `tasks`, `evaluation`, `batches`, `losses`, `planning`, `model`, `data`,
`storage`, `telemetry`, and beside it `signals`, `rank_environment` and `whole_files`. `tasks` is the page to read
before adding a task.
"""
