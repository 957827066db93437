"""One attempt: a child Job and its pods, from start to end.

start         the next attempt, and a Job that the API server refuses
follow        what the pods of a live one do, and why none runs
end           what of its end the status keeps, and whether the run ends with it
outcome       how it ended: Job, pods and termination message -> one of four ends
wait_causes       why no pod runs: queue, scheduler, image, Secret, policy
deadlines     of the run, the prepare stage and the waiting, and what they end
clock         the arithmetic of running and waiting time
refusals      what the API server's refusal means
"""

__all__: list[str] = []
