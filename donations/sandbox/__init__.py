"""A local Stripe, for demonstrations, tests and the curious. No money moves.

A plain WSGI application on the standard library's SQLite; it knows nothing of the site, and the site reaches it over
HTTP alone, as it would reach Stripe. Rooms, from the outside in:

    server     the HTTP server                     app        which room a path belongs to
    api        /v1/: endpoints and their answers   params, lists, expand, idempotency, errors
    pay_page   the hosted payment page             dashboard, control, state   what only the sandbox has
    checkout, payments, refunds                    what happens, and the events that tell of it
    objects, amounts, ids                          Stripe's shapes, limits and names
    events, deliveries, jobs, trouble              what is sent, what happens by itself, and what goes wrong at will
    store, clock, web, pages                       the state, the time, requests and templates
"""
