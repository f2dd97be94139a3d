"""The reconciler as a service: follow a branch, sync what is due, answer over HTTP.

    place                 the service's own directory: its mark, its clone, its lock
    branch                is the branch's commit one to follow: rewritten, unsigned, invalid
    view                  the catalog at that commit with its plan, as one value
    memory                what outlives a restart: suspensions, failures, attempts
    choice, pace          which models are due, and what is done next and when (pure)
    conditions, metrics   Ready, Reconciling and Stalled; Prometheus' text (pure)
    jobs                  `registry sync` as a child process, with a log
    snapshot, reconciler  the one value that everybody reads, and the thread that makes it
    access                bearer tokens and the signatures of webhooks (pure)
    graph                 what is inside a model, and what is made of an ingredient
    answers, api, pages   HTTP: the shapes, the routes, the page for people
    server                the process: port, threads, an end in order

The service reads the catalog itself and leaves all building to its children, so that it holds
neither torch nor MLflow nor DVC. FastAPI and uvicorn have their only doors here.
"""
