"""A local Stripe, for demonstrations, tests and the curious. No money moves.

A plain WSGI application on the standard library's SQLite; it knows nothing of the site, and the site reaches it over
HTTP alone, as it would reach Stripe. Rooms, from the outside in:

    server     the HTTP server                     app        which room a path belongs to
    api, endpoints   /v1/: how calls are answered, and which there are   params, lists, expand, idempotency, errors
    pay_page, billing_pages     what donors see    dashboard, control, state   what only the sandbox has
    paying, renewals            a checkout that is paid, and the months after it
    checkout, payments, invoices, subscriptions, portal, refunds, disputes, payouts
                                                   what happens, and the events that tell of it
    balance, account, cards     where the money is, on which terms, and what the test cards do
    objects, billing_objects, money_objects, amounts, ids      Stripe's shapes, limits and names
    events, deliveries, jobs, trouble              what is sent, what happens by itself, and what goes wrong at will
    seeding                                        many payments at once
    store, lookups, clock, web, pages              the state, its indexes, the time, requests and templates
"""
