"""The site and its peers without the worker inside the process: workers drain elsewhere, as with Redis."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.bench.settings")

application = get_wsgi_application()
