"""Our placement beside what others do, on the same clusters; and how near it comes to its own lower bound."""
