"""The site as a WSGI application; each process that loads it also runs the in-process worker."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "supportsite.settings")

application = get_wsgi_application()

from donations import ticker  # noqa: E402  (models load only once Django is set up)

ticker.start()
