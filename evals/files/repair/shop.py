import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from fastapi import Depends, FastAPI, Request
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlmodel import Field, Relationship, SQLModel, func, select
from sqlmodel.ext.asyncio.session import AsyncSession


class Customer(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(max_length=50)
    orders: list["Order"] = Relationship(back_populates="customer")


class Order(SQLModel, table=True):
    __tablename__ = "shop_order"

    id: int | None = Field(default=None, primary_key=True)
    code: str = Field(max_length=20, unique=True)
    quantity: int = Field(ge=1)
    placed_at: datetime = Field(default=datetime.now())
    customer_id: int | None = Field(default=None, foreign_key="customer.id")
    customer: Customer | None = Relationship(back_populates="orders")


class OrderWithCustomer(SQLModel):
    id: int
    code: str
    quantity: int
    placed_at: datetime
    customer: Customer | None


async def get_session(request: Request) -> AsyncIterator[AsyncSession]:
    async with request.app.state.sessions() as session:
        yield session
        await session.commit()


def create_app(url: str) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = create_async_engine(url)
        async with engine.begin() as connection:
            await connection.run_sync(SQLModel.metadata.create_all)
        app.state.sessions = async_sessionmaker(engine, class_=AsyncSession)
        yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/customers", status_code=201)
    async def add_customer(
        customer: Customer, session: AsyncSession = Depends(get_session)
    ) -> Customer:
        session.add(customer)
        await session.flush()
        return customer

    @app.post("/orders", status_code=201)
    async def add_order(order: Order, session: AsyncSession = Depends(get_session)) -> dict:
        session.add(order)
        return {"code": order.code}

    @app.get("/orders/{order_id}", response_model=OrderWithCustomer)
    async def read_order(order_id: int, session: AsyncSession = Depends(get_session)) -> Order:
        return (await session.exec(select(Order).where(Order.id == order_id))).one()

    @app.get("/search")
    async def search(q: str, session: AsyncSession = Depends(get_session)) -> list[str]:
        statement = select(Order.code).where(Order.code.ilike(f"%{q}%")).order_by(Order.code)
        return list((await session.exec(statement)).all())

    @app.get("/summary")
    async def summary(session: AsyncSession = Depends(get_session)) -> dict:
        orders, customers = await asyncio.gather(
            session.exec(select(func.count()).select_from(Order)),
            session.exec(select(func.count()).select_from(Customer)),
        )
        return {"orders": orders.one(), "customers": customers.one()}

    return app
