"""Each time says its zone: campaigns have zones of their own, and staff look at several at once."""

DATETIME_FORMAT = "N j, Y, P e"
SHORT_DATETIME_FORMAT = "m/d/Y P e"
