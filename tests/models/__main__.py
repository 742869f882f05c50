"""python -m tests.models"""

from tests.models import folder

print(folder())
