"""One attempt: a child Job and its pods, from start to end.

start         the next attempt, and a Job that the API server refuses
follow        what the pods of a live one do, and why none runs
end           what of its end the status keeps, and whether the run ends with it
outcome       how it ended: Job, pods and termination message -> one of four ends
waiting       why no pod runs: queue, scheduler, image, Secret, policy
limits        the deadlines of the run, the prepare stage and the waiting
clock         the arithmetic of running and waiting time
refusals      what the API server's refusal means
"""

__all__: list[str] = []
