"""What Django writes to the log of a request."""

import logging


class RouteInPlaceOfPath(logging.Filter):
    """Name a page by its route, `/thanks/<str:token>/`, where Django's own lines have the address with its token."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always True: every line is written."""
        request = getattr(record, "request", None)
        match = getattr(request, "resolver_match", None)
        if request is not None and match is not None and isinstance(record.args, tuple):
            record.args = tuple(f"/{match.route}" if said == request.path else said for said in record.args)
        return True
