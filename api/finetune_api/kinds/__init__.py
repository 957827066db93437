"""One folder for each kind of object, with `spec` (what users write) and `status` (what the operator reports).

object_model          base of every object: camelCase outside, unknown fields refused
field_types           addresses, names of Kubernetes objects, bounded texts
storage, pods         parts of a spec that several kinds have: the object store; resources, place, image, environment
status_fields, status_conditions, attempts    parts of every status: texts and times; conditions; one child Job each
finetunejob/          one run of a fine-tuning
"""
