"""What a machine costs: its price, its rent, and what a million tokens come to."""

from cmsim.cost.price import PRICE, RENT, check_priced, million_USD, price_USD, rent

__all__ = ["PRICE", "RENT", "check_priced", "million_USD", "price_USD", "rent"]
