"""What runs a kind of ours, whatever it is: nothing here imports a spec, a status or `jobs`.

    kind          the protocol a kind satisfies: every extension point on one page
    plan          what a reconcile decides: status, actions, Events
    workqueue     keys that wait for their time: coalesced, never out twice, never twice within a second
    controller    events in; for each key: reader -> the kind's reconcile -> writer -> events
    records       what is remembered of each object
    index         which objects share a value
    resync        compares everything with the API server, and deletes orphans
    watch         kopf: its settings, and its new start when it ends
    client        the one connection to the API server
    access        the rules it needs, checked at the start
    health, metrics, logs    signs of life

A new kind is one object that satisfies `kind.Kind`, and one line in `__main__`.
"""

__all__: list[str] = []
