"""One folder for each kind of object, with `spec` (what users write) and `status` (what the operator reports).

object_model          base of every object: camelCase outside, unknown fields refused
field_types           addresses, names of Kubernetes objects, bounded texts
storage, pods         parts that several kinds have: the object store; resources, place, image, environment
finetunejob/          one run of a fine-tuning
"""
