"""What runs a kind of ours, whatever it is: nothing here imports a spec, a status or `jobs`.

    kind             the protocol a kind satisfies: every extension point on one page
    plan             what a reconcile decides: status, actions, Events
    workqueue        keys that wait for their time: coalesced, never out twice, never twice within a second
    runner           one kind at work: controller, resync and pod_poller together
    controller       events in; for each key: live_state -> the kind's reconcile -> plan_executor -> events
    live_state       what one pass decides on, read from the API server
    plan_executor    writes the status, then creates, patches and deletes
    records          what is remembered of each object
    index            which objects share a value
    pod_poller       asks running pods what they are at; the kind says whom, and what is news
    resync           compares everything with the API server, and deletes orphans
    kopf_runner      kopf, which watches: settings, login, and a new start when an answer (410, 401, 5xx) ended it
    api_client       the one connection to the API server: requests, pages of lists, timeouts
    projection       which fields of each object of a long list are read
    access           the rules it needs, checked at the start
    health, metrics, logs: signs of life

A new kind is one object that satisfies `kind.Kind`, one line in `__main__`, and its decorator in `handlers`.
"""

__all__: list[str] = []
